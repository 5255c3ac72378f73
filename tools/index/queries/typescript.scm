; Definitions. The first pattern that names a place decides its kind.
(class_declaration name: (type_identifier) @name) @definition.class
(abstract_class_declaration name: (type_identifier) @name) @definition.class
(class name: (type_identifier) @name) @definition.class
(interface_declaration name: (type_identifier) @name) @definition.interface
(enum_declaration name: (identifier) @name) @definition.enum
(type_alias_declaration name: (type_identifier) @name) @definition.type
(internal_module name: (_) @name) @definition.module
(module name: (_) @name) @definition.module
(method_definition name: [(property_identifier) (private_property_identifier)] @name) @definition.method
(method_signature name: (property_identifier) @name) @definition.method
(abstract_method_signature name: (property_identifier) @name) @definition.method
(public_field_definition name: [(property_identifier) (private_property_identifier)] @name
  value: [(arrow_function) (function_expression)]) @definition.method
(function_declaration name: (identifier) @name) @definition.function
(generator_function_declaration name: (identifier) @name) @definition.function
(function_signature name: (identifier) @name) @definition.function
(variable_declarator name: (identifier) @name
  value: [(arrow_function) (function_expression) (generator_function)]) @definition.function
(variable_declarator name: (identifier) @name value: (class)) @definition.class
(assignment_expression
  left: [(identifier) @name (member_expression property: (property_identifier) @name)]
  right: [(arrow_function) (function_expression)]) @definition.function
(pair key: (property_identifier) @name
  value: [(arrow_function) (function_expression)]) @definition.method
(program (lexical_declaration (variable_declarator name: (identifier) @name) @definition.variable))
(program (export_statement
  (lexical_declaration (variable_declarator name: (identifier) @name) @definition.variable)))
(ambient_declaration (lexical_declaration
  (variable_declarator name: (identifier) @name) @definition.variable))

;; references
[(identifier) (property_identifier) (private_property_identifier)
 (shorthand_property_identifier) (type_identifier)] @any
(type_identifier) @strong
(call_expression function: (identifier) @strong)
(call_expression function: (member_expression property: (property_identifier) @strong))
(new_expression constructor: (identifier) @strong)
(new_expression constructor: (member_expression property: (property_identifier) @strong))
(class_heritage (extends_clause value: (identifier) @strong))
(import_specifier name: (identifier) @strong)
(import_clause (identifier) @strong)
(export_specifier name: (identifier) @strong)
