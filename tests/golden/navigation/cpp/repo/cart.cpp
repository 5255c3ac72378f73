namespace shop {

template <typename T>
class Cart : public Base {
public:
    explicit Cart(int size) : size_(size) {}
    virtual ~Cart() = default;
    int total() const { return size_; }
    T &at(int index);

private:
    int size_;
};

struct Point { int x; };
enum class Kind { Small, Large };
using Items = Cart<int>;

template <typename T>
T &Cart<T>::at(int index) { static T item; return item; }

int make_cart(int size)
{
    Cart<int> cart(size);
    return cart.total();
}

}  // namespace shop
