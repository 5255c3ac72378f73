type Props = { items: string[] };

export function Cart({ items }: Props) {
  return <ul>{items.map((item) => <li>{item}</li>)}</ul>;
}
export const Row = (props: Props) => <b>{props.items[0]}</b>;
