"""A cart."""
LIMIT = 10


class Base:
    pass


class Cart(Base):
    size: int = 0

    def __init__(self, items: list[int]) -> None:
        self.items = items

    @property
    def total(self) -> int:
        return sum(self.items)

    async def load(
        self,
        path: str,
    ) -> None:
        def inner():
            return LIMIT

        inner()


def make_cart(*items, limit=LIMIT):
    return Cart(list(items))
