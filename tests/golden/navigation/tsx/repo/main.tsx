import { Cart, Row } from "./cart";

export const App = () => <div><Cart items={[]} /><Row items={[]}></Row></div>;
