package dhcp

func words6(b []byte) string { return "" }
