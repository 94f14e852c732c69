
J(”ÎbŸ{¢®ªdlbˆ€i¼~ÄÓîgeešÉŞ×¨hebòbj£jmªc