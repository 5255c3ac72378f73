gruß = 'ü'
