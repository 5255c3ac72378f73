pub const LIMIT: usize = 10;

pub trait Priced {
    fn price(&self) -> u32;
}

#[derive(Clone)]
pub struct Cart<T> {
    items: Vec<T>,
}

pub enum Kind {
    Small,
    Large,
}

impl<T> Cart<T> {
    pub fn total(&self) -> usize {
        self.items.len()
    }
}

impl Priced for Cart<u32> {
    fn price(&self) -> u32 {
        fn inner() -> u32 { 1 }
        inner()
    }
}

pub fn make_cart(items: Vec<u32>) -> Cart<u32> {
    Cart { items }
}

macro_rules! cart {
    ($x:expr) => { make_cart($x) };
}

mod inside {
    pub fn helper() {}
}
