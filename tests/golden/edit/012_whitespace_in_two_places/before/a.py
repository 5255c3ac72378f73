if a:
  go(1)
if b:
  go(1)
