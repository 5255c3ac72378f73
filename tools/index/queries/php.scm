; Definitions. The first pattern that names a place decides its kind.
(class_declaration name: (name) @name) @definition.class
(interface_declaration name: (name) @name) @definition.interface
(trait_declaration name: (name) @name) @definition.trait
(enum_declaration name: (name) @name) @definition.enum
(function_definition name: (name) @name) @definition.function
(method_declaration name: (name) @name) @definition.method
(const_declaration (const_element (name) @name)) @definition.constant
(namespace_definition name: (namespace_name) @name) @definition.module

;; references
(name) @any
(function_call_expression function: (name) @strong)
(function_call_expression function: (qualified_name (name) @strong))
(member_call_expression name: (name) @strong)
(nullsafe_member_call_expression name: (name) @strong)
(scoped_call_expression name: (name) @strong)
(scoped_call_expression scope: (name) @strong)
(class_constant_access_expression (name) @strong)
(object_creation_expression (name) @strong)
(object_creation_expression (qualified_name (name) @strong))
(base_clause (name) @strong)
(class_interface_clause (name) @strong)
(use_declaration (name) @strong)
(named_type (name) @strong)
(namespace_use_clause (qualified_name (name) @strong))
