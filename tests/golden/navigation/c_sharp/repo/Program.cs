namespace Shop
{
    class Program
    {
        static void Main()
        {
            Cart cart = Cart.MakeCart(2); // MakeCart in a comment
            cart.Price();
        }
    }
}
