; Definitions. The first pattern that names a place decides its kind.
(class_definition name: (identifier) @name) @definition.class
(class_definition body: (block (function_definition name: (identifier) @name) @definition.method))
(class_definition
  body: (block (decorated_definition
    definition: (function_definition name: (identifier) @name) @definition.method)))
(function_definition name: (identifier) @name) @definition.function
(type_alias_statement left: (type (identifier) @name)) @definition.type
(module (expression_statement (assignment left: (identifier) @name) @definition.variable))

;; references
(identifier) @any
(call function: (identifier) @strong)
(call function: (attribute attribute: (identifier) @strong))
(decorator (identifier) @strong)
(decorator (attribute attribute: (identifier) @strong))
(import_from_statement name: (dotted_name (identifier) @strong .))
(import_from_statement name: (aliased_import name: (dotted_name (identifier) @strong .)))
(import_from_statement module_name: (dotted_name (identifier) @strong .))
(import_statement name: (dotted_name (identifier) @strong .))
(class_definition superclasses: (argument_list (identifier) @strong))
(class_definition superclasses: (argument_list (attribute attribute: (identifier) @strong)))
(type (identifier) @strong)
(type (generic_type (identifier) @strong))
(type (attribute attribute: (identifier) @strong))
(except_clause (identifier) @strong)
