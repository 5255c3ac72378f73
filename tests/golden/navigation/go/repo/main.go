package shop

func run() int {
	// MakeCart in a comment
	cart := MakeCart(1, 2)
	return cart.Total()
}
