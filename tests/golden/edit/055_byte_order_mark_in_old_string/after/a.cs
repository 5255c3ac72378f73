using Other;
