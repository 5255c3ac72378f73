label = 1
