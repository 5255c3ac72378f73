"""repo_map, find_symbol and find_references over small repositories."""

from __future__ import annotations

import pytest

from tools.text.token_estimate import estimate_tokens


@pytest.fixture
def shop(bench):
    """A few files that use each other."""
    bench.write(
        "shop/cart.py",
        "LIMIT = 10\n\n\nclass Cart:\n    def __init__(self, items):\n        self.items = items\n"
        "\n    def total_price(self):\n        def inner_helper():\n            return LIMIT\n\n"
        "        return sum(self.items) + inner_helper()\n",
    )
    bench.write("shop/__init__.py", "from shop.cart import Cart\n")
    bench.write(
        "shop/orders.py",
        "from shop.cart import Cart\n\n\ndef place_order(items):\n    return Cart(items)\n",
    )
    bench.write(
        "main.py", "from shop.orders import place_order\n\nprint(place_order([1]).total_price())\n"
    )
    bench.write("web/app.js", "import { render } from './view.js';\nrender();\n")
    bench.write("web/view.js", "export function render() {}\nfunction unusedHelper() {}\n")
    return bench


def test_a_map_of_everything(shop) -> None:
    observation = shop("repo_map")
    assert observation.ok
    assert not observation.truncated
    files = observation.text.split("\n")
    assert files[0] == "shop/cart.py"
    assert "    4: class Cart" in files
    assert "    8:   def total_price(self)" in files
    assert "inner_helper" not in observation.text
    assert files.index("    4: class Cart") < files.index("    5:   def __init__(self, items)")


def test_a_map_of_a_part(shop) -> None:
    assert shop("repo_map", path="web").text == (
        "web/view.js\n    1: function render()\n    2: function unusedHelper()"
    )
    assert shop("repo_map", path="web/view.js").text == shop("repo_map", path="web").text
    assert shop("repo_map", path="shop/__init__.py").text.startswith(
        "No source code that can be mapped in shop/__init__.py."
    )
    assert not shop("repo_map", path="nowhere").ok
    assert not shop("repo_map", path="/etc").ok


def test_the_task_and_what_was_read_come_first(shop) -> None:
    shop.context.task = "The function unusedHelper in view.js is wrong."
    assert shop("repo_map").text.startswith("web/view.js\n")
    shop.context.task = ""
    assert shop("repo_map").text.startswith("shop/")
    shop("read_file", file_path="web/app.js")
    assert shop("repo_map").text.startswith("web/view.js")


@pytest.mark.parametrize("max_tokens", [50, 51, 60, 75, 100, 150, 300, 1000])
@pytest.mark.parametrize("count", [estimate_tokens, len, lambda text: len(text.split())])
def test_a_map_is_never_over_its_budget(shop, max_tokens, count) -> None:
    for number in range(60):
        shop.write(
            f"many/ü{number}.py", f"class Thing{number}:\n    def act_{number}(self): pass\n"
        )
    shop.context.count_tokens = count
    observation = shop("repo_map", max_tokens=max_tokens)
    if observation.ok:
        assert count(observation.text) <= max_tokens
        assert observation.text.count(":") >= 1
        assert observation.truncated is ("weightiest" in observation.text)
    else:
        assert count is len
        assert observation.text == (
            f"{max_tokens} tokens are too few for one definition: give more max_tokens."
        )


def test_a_tight_map_says_what_it_leaves_out(shop) -> None:
    observation = shop("repo_map", max_tokens=80)
    assert observation.truncated
    assert "names, in 3 of 3 files; give a path or more max_tokens for others]" in observation.text


@pytest.mark.parametrize("max_tokens", [0, 49, 40_000, "many"])
def test_budgets_out_of_range_are_refused(shop, max_tokens) -> None:
    assert not shop("repo_map", max_tokens=max_tokens).ok


def test_a_repository_without_code(bench) -> None:
    bench.write("README.md", "text\n")
    observation = bench("repo_map")
    assert observation.ok
    assert observation.text.startswith("No source code that can be mapped.")
    assert bench("find_symbol", name="x").text.startswith("No definition of x in the index.")
    assert bench("find_references", name="x").text.startswith("No code in the index mentions x.")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Cart", "shop/cart.py:4-12: class Cart"),
        ("total_price", "shop/cart.py:8-12: def total_price(self)  [method in Cart]"),
        ("Cart.total_price", "shop/cart.py:8-12: def total_price(self)  [method in Cart]"),
        ("Cart::total_price()", "shop/cart.py:8-12: def total_price(self)  [method in Cart]"),
        ("shop.cart.Cart", "shop/cart.py:4-12: class Cart"),
        ("`LIMIT`", "shop/cart.py:1: LIMIT = 10"),
        ("inner_helper", "shop/cart.py:9-10: def inner_helper()  [function in Cart.total_price]"),
        (
            "Basket.total_price",
            "Nothing called total_price is in Basket; these are elsewhere:\n"
            "shop/cart.py:8-12: def total_price(self)  [method in Cart]",
        ),
        (
            "totalPrice",
            "No definition of totalPrice in the index. Nearest: total_price. "
            "grep_search finds other text.",
        ),
        (
            "items",
            "No definition of items in the index. The name is used; see find_references.",
        ),
    ],
)
def test_find_symbol(shop, name, text) -> None:
    observation = shop("find_symbol", name=name)
    assert observation.ok
    assert observation.text == text


def test_many_definitions_are_cut(bench) -> None:
    for number in range(60):
        bench.write(f"f{number:02}.py", "def run(): pass\n")
    observation = bench("find_symbol", name="run")
    assert observation.truncated
    lines = observation.text.split("\n")
    assert lines[0] == "f00.py:1: def run()"
    assert lines[-1] == "[50 of 60 definitions shown]"


def test_find_references(shop) -> None:
    assert shop("find_references", name="Cart").text == (
        "3 lines in 2 files mention Cart (by spelling; other things of the same name are among "
        "them; comments and strings are not).\n"
        "defined: shop/cart.py:4-12: class Cart\n"
        "shop/orders.py\n    1: from shop.cart import Cart\n    5: return Cart(items)\n"
        "shop/__init__.py\n    1: from shop.cart import Cart"
    )
    assert shop("find_references", name="unusedHelper").text == (
        "unusedHelper is defined, but no code in the index mentions it; see find_symbol."
    )
    assert shop("find_references", name="place_ordr").text.startswith(
        "No code in the index mentions place_ordr. Nearest defined names: place_order."
    )


def test_many_references_are_cut_and_named(bench) -> None:
    bench.write("lib.py", "def used(): pass\n")
    for number in range(30):
        bench.write(f"f{number:02}.py", "used()\n" * (30 if number == 0 else 5))
    observation = bench("find_references", name="used")
    assert observation.truncated
    assert "[10 more lines in this file]" in observation.text
    assert observation.text.split("\n")[-1].startswith("[left out: f17.py (5), f18.py (5)")


def test_an_edit_is_seen_at_once(shop) -> None:
    shop("find_symbol", name="Cart")
    shop("edit", file_path="shop/cart.py", old_string="class Cart:", new_string="class Basket:")
    assert shop("find_symbol", name="Basket").text == "shop/cart.py:4-12: class Basket"
    assert shop("find_symbol", name="Cart").text.startswith("No definition of Cart in the index.")


def test_odd_names_stay_on_one_line(bench) -> None:
    bench.write("a\nb\x1b[31m.py", "def odd(): pass\n\n\nodd()\n")
    assert bench("find_symbol", name="odd").text == "a\\nb\\x1b[31m.py:1: def odd()"
    assert "a\\nb\\x1b[31m.py\n    4: odd()" in bench("find_references", name="odd").text
    assert bench("repo_map").text == "a\\nb\\x1b[31m.py\n    1: def odd()"


@pytest.mark.parametrize("name", ["", "::", "()", "x" * 500])
@pytest.mark.parametrize("tool", ["find_symbol", "find_references"])
def test_empty_and_endless_names_are_refused(shop, tool, name) -> None:
    assert not shop(tool, name=name).ok


def test_a_cache_that_cannot_be_written_costs_time_only(shop, own_cache) -> None:
    own_cache.write_text("a file where the folder should be")
    assert shop("find_symbol", name="Cart").text == "shop/cart.py:4-12: class Cart"
