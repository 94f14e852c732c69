
J(I†)t~œ–L†‰cÑW:Êx°®£8­XDJ(0Gºuf0h¥’m¾–4œP