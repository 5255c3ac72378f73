gruß = 'ö'
