package remote

// ipamNeeds answers IpamDriver.GetCapabilities.
type ipamNeeds struct {
	problem
	RequiresMACAddress, RequiresRequestReplay bool
}

type addressSpaces struct {
	problem
	LocalDefaultAddressSpace, GlobalDefaultAddressSpace string
}

type requestPool struct {
	AddressSpace, Pool, SubPool string
	Options                     map[string]string
	V6                          bool
}

type requestedPool struct {
	problem
	PoolID, Pool string
	Data         map[string]string
}

type releasePool struct{ PoolID string }

type requestAddress struct {
	PoolID, Address string
	Options         map[string]string
}

type requestedAddress struct {
	problem
	Address string
	Data    map[string]string
}

type releaseAddress struct{ PoolID, Address string }
