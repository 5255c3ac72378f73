; Definitions. The first pattern that names a place decides its kind.
(class name: [(constant) @name (scope_resolution name: (_) @name)]) @definition.class
(module name: [(constant) @name (scope_resolution name: (_) @name)]) @definition.module
(singleton_method name: (_) @name) @definition.method
(method name: (_) @name) @definition.method
(alias name: (_) @name) @definition.method
(assignment left: (constant) @name) @definition.constant

;; references
[(identifier) (constant)] @any
(constant) @strong
(call method: (identifier) @strong)
