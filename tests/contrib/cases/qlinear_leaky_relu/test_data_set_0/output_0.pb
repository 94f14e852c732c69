
J(ibj¡îk¶Ìmëkgã~ÈİcäcegddhÜlgcióÓhã²bíl