value = compute( a,b )
