package shop;

public class Cart implements Priced {
    public static final int LIMIT = 10;
    private int[] items;

    public Cart(int... items) {
        this.items = items;
    }

    @Override
    public int price() {
        return items.length;
    }

    static Cart makeCart(int... items) {
        return new Cart(items);
    }

    enum Kind { SMALL, LARGE }
}

interface Priced {
    int price();
}

record Point(int x, int y) {}
