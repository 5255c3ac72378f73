; Definitions. The first pattern that names a place decides its kind.
(function_definition name: (word) @name) @definition.function
(program (variable_assignment name: (variable_name) @name) @definition.variable)
(program (declaration_command
  (variable_assignment name: (variable_name) @name) @definition.variable))

;; references
(command_name (word) @any)
(variable_name) @any
(command_name (word) @strong)
