; Definitions. The first pattern that names a place decides its kind.
(class_declaration name: (identifier) @name) @definition.class
(record_declaration name: (identifier) @name) @definition.class
(interface_declaration name: (identifier) @name) @definition.interface
(annotation_type_declaration name: (identifier) @name) @definition.interface
(enum_declaration name: (identifier) @name) @definition.enum
(method_declaration name: (identifier) @name) @definition.method
(constructor_declaration name: (identifier) @name) @definition.constructor
(field_declaration (modifiers "static")
  declarator: (variable_declarator name: (identifier) @name)) @definition.constant

;; references
[(identifier) (type_identifier)] @any
(type_identifier) @strong
(method_invocation name: (identifier) @strong)
(import_declaration (scoped_identifier name: (identifier) @strong))
(marker_annotation name: (identifier) @strong)
(annotation name: (identifier) @strong)
(method_reference (identifier) @strong .)
