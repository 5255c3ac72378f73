; Definitions. The first pattern that names a place decides its kind.
(class_specifier name: (type_identifier) @name body: (_)) @definition.class
(struct_specifier name: (type_identifier) @name body: (_)) @definition.struct
(union_specifier name: (type_identifier) @name body: (_)) @definition.struct
(enum_specifier name: (type_identifier) @name body: (_)) @definition.enum
(namespace_definition name: (_) @name) @definition.module
(concept_definition name: (identifier) @name) @definition.type
(alias_declaration name: (type_identifier) @name) @definition.type
(type_definition declarator: (type_identifier) @name) @definition.type
(function_definition declarator: [
  (function_declarator declarator: (qualified_identifier
    scope: (_) @parent name: [(identifier) (destructor_name) (operator_name)] @name))
  (pointer_declarator (function_declarator declarator: (qualified_identifier
    scope: (_) @parent name: [(identifier) (operator_name)] @name)))
  (reference_declarator (function_declarator declarator: (qualified_identifier
    scope: (_) @parent name: [(identifier) (operator_name)] @name)))
]) @definition.method
(function_definition declarator: [
  (function_declarator declarator: (field_identifier) @name)
  (pointer_declarator (function_declarator declarator: (field_identifier) @name))
  (reference_declarator (function_declarator declarator: (field_identifier) @name))
]) @definition.method
(function_definition declarator: [
  (function_declarator declarator: (identifier) @name)
  (pointer_declarator (function_declarator declarator: (identifier) @name))
  (reference_declarator (function_declarator declarator: (identifier) @name))
]) @definition.function
(field_declaration declarator: [
  (function_declarator declarator: (field_identifier) @name)
  (pointer_declarator (function_declarator declarator: (field_identifier) @name))
  (reference_declarator (function_declarator declarator: (field_identifier) @name))
]) @definition.prototype
(declaration declarator: [
  (function_declarator declarator: (identifier) @name)
  (pointer_declarator (function_declarator declarator: (identifier) @name))
  (reference_declarator (function_declarator declarator: (identifier) @name))
]) @definition.prototype
(preproc_def name: (identifier) @name) @definition.macro
(preproc_function_def name: (identifier) @name) @definition.macro

;; references
[(identifier) (field_identifier) (type_identifier) (namespace_identifier)] @any
(type_identifier) @strong
(call_expression function: (identifier) @strong)
(call_expression function: (field_expression field: (field_identifier) @strong))
(call_expression function: (qualified_identifier name: (identifier) @strong))
(call_expression function: (template_function name: (identifier) @strong))
