package shop

const Limit = 10

var (
	shared = 1
)

type Priced interface {
	Price() int
}

type Cart struct {
	items []int
}

type Items = []int

func (c *Cart) Total() int {
	sum := 0
	for _, item := range c.items {
		sum += item
	}
	return sum
}

func MakeCart(items ...int) *Cart {
	return &Cart{items: items}
}
