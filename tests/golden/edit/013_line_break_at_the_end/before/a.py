x = 1
yy = 22