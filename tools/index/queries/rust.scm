; Definitions. The first pattern that names a place decides its kind.
(struct_item name: (type_identifier) @name) @definition.struct
(enum_item name: (type_identifier) @name) @definition.enum
(union_item name: (type_identifier) @name) @definition.struct
(trait_item name: (type_identifier) @name) @definition.trait
(impl_item type: [(type_identifier) @name
                  (generic_type type: (type_identifier) @name)
                  (scoped_type_identifier name: (type_identifier) @name)]) @definition.impl
(type_item name: (type_identifier) @name) @definition.type
(mod_item name: (identifier) @name body: (_)) @definition.module
(macro_definition name: (identifier) @name) @definition.macro
(declaration_list (function_item name: (identifier) @name) @definition.method)
(declaration_list (function_signature_item name: (identifier) @name) @definition.method)
(function_item name: (identifier) @name) @definition.function
(function_signature_item name: (identifier) @name) @definition.function
(const_item name: (identifier) @name) @definition.constant
(static_item name: (identifier) @name) @definition.constant

;; references
[(identifier) (field_identifier) (type_identifier)] @any
(type_identifier) @strong
(call_expression function: (identifier) @strong)
(call_expression function: (scoped_identifier name: (identifier) @strong))
(call_expression function: (field_expression field: (field_identifier) @strong))
(generic_function function: (identifier) @strong)
(macro_invocation macro: (identifier) @strong)
(use_declaration argument: (scoped_identifier name: (identifier) @strong))
(use_declaration argument: (identifier) @strong)
(use_list (identifier) @strong)
(use_list (scoped_identifier name: (identifier) @strong))
