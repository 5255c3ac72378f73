module Shop
  LIMIT = 10

  class Cart < Base
    def initialize(items)
      @items = items
    end

    def total
      @items.sum
    end

    def self.make_cart(*items)
      new(items)
    end
    alias sum total
  end
end
