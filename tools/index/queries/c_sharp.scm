; Definitions. The first pattern that names a place decides its kind.
(class_declaration name: (identifier) @name) @definition.class
(record_declaration name: (identifier) @name) @definition.class
(struct_declaration name: (identifier) @name) @definition.struct
(interface_declaration name: (identifier) @name) @definition.interface
(enum_declaration name: (identifier) @name) @definition.enum
(delegate_declaration name: (identifier) @name) @definition.type
(method_declaration name: (identifier) @name) @definition.method
(constructor_declaration name: (identifier) @name) @definition.constructor
(property_declaration name: (identifier) @name) @definition.property
(local_function_statement name: (identifier) @name) @definition.function
(namespace_declaration name: (_) @name) @definition.module
(file_scoped_namespace_declaration name: (_) @name) @definition.module

;; references
(identifier) @any
(invocation_expression function: (identifier) @strong)
(invocation_expression function: (generic_name (identifier) @strong))
(invocation_expression function: (member_access_expression name: (identifier) @strong))
(invocation_expression function: (member_access_expression name: (generic_name (identifier) @strong)))
(object_creation_expression type: (identifier) @strong)
(object_creation_expression type: (generic_name (identifier) @strong))
(base_list (identifier) @strong)
(base_list (generic_name (identifier) @strong))
(variable_declaration type: (identifier) @strong)
(variable_declaration type: (generic_name (identifier) @strong))
(parameter type: (identifier) @strong)
(method_declaration returns: (identifier) @strong)
(property_declaration type: (identifier) @strong)
(attribute name: (identifier) @strong)
(type_argument_list (identifier) @strong)
