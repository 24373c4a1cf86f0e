package store

// Version is the number of the format that schema.go draws.
//
//	isle.db (bbolt; one bucket "isle", keys as paths, values JSON)
//	├── meta/version                      the format's number, "1"
//	├── container/<id>                    container.Record
//	├── volume/<name>                     volume.Record
//	├── network/<id>                      network.Network
//	├── number/<id>                       the number, on this host, of a network that is the cluster's
//	├── foothold/<id>                     network.Network of the cluster that containers of this host are on
//	├── sandbox/<container id>            network.Sandbox
//	├── endpoint/<id>                     network.Endpoint
//	├── debt/<endpoint id>                network.Attachment that is gone and that a plug-in still has
//	├── debt-network/<id>                 network.Network that is gone and that a plug-in still has
//	├── publish/<proto>/<host ip>/<port>  id of the container that holds the row of ports that begins there
//	│                                     ("<host ip>%<interface>" for those of an interface)
//	├── cni/<key>                         engine.attachment: a namespace of another runtime
//	├── cluster/self                      cluster.self: this host's place in a cluster, if it is in one
//	└── ipam/<pool>/addr/<address>        owner of the address
//	    ipam/<pool>/owner/<owner>         the owner's address
//
// Images are in containerd's own metadata database beside this one.
const Version = 1
