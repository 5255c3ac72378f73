(jsx_opening_element name: (identifier) @strong)
(jsx_self_closing_element name: (identifier) @strong)
