using System;

namespace Shop
{
    public interface IPriced { int Price(); }

    public class Cart : IPriced
    {
        public int Size { get; set; }

        public Cart(int size) { Size = size; }

        public int Price()
        {
            int Inner() { return 1; }
            return Inner();
        }

        public static Cart MakeCart(int size) => new Cart(size);
    }

    public struct Point { public int X; }
    public enum Kind { Small, Large }
    public record Pair(int A, int B);
}
