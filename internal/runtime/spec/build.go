package spec

import (
	"errors"
	"fmt"
	"maps"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"isle/internal/runtime/cgroup"
)

// ociVersion is what every runtime takes; crun 1.8 refuses a version that does
// not begin with 1.0, whatever the configuration has in it.
const ociVersion = "1.0.2"

// Build is the configuration of a container. Errors are of class
// InvalidArgument when the user asked for what cannot be.
func Build(in Input) (*specs.Spec, error) {
	cfg, hc := in.Record.Config, in.Record.Host
	if cfg == nil || hc == nil {
		return nil, errors.New("write the runtime's configuration: the record has none of its own")
	}
	if err := cgroup.Check(hc.Resources, in.Host.Cgroup); err != nil {
		return nil, err
	}
	sec, err := parseSecurity(hc.SecurityOpt)
	if err != nil {
		return nil, err
	}
	s := &specs.Spec{
		Version:     ociVersion,
		Root:        &specs.Root{Path: in.Rootfs, Readonly: hc.ReadonlyRootfs},
		Annotations: maps.Clone(hc.Annotations), // the user's; an image's never
	}
	if !hc.UTSMode.IsHost() {
		s.Hostname, s.Domainname = cfg.Hostname, cfg.Domainname
	}
	if s.Process, err = process(in, sec); err != nil {
		return nil, err
	}
	if s.Mounts, err = mounts(in, sec); err != nil {
		return nil, err
	}
	if s.Linux, err = linux(in); err != nil {
		return nil, err
	}
	if s.Linux.Seccomp, err = seccompProfile(in.Host, sec.seccomp, hc.Privileged, s); err != nil {
		return nil, fmt.Errorf("seccomp: %w", err)
	}
	return s, nil
}

func linux(in Input) (*specs.Linux, error) {
	hc := in.Record.Host
	l := &specs.Linux{CgroupsPath: in.Cgroup.OCI, RootfsPropagation: rootPropagation(in.Mounts)}
	var err error
	if l.Namespaces, err = namespaces(in); err != nil {
		return nil, err
	}
	if l.Sysctl, err = sysctls(hc); err != nil {
		return nil, err
	}
	if l.Resources, err = Resources(hc.Resources, in.Host.Cgroup, in.Devices); err != nil {
		return nil, err
	}
	if l.Devices, l.Resources.Devices, err = devices(in); err != nil {
		return nil, err
	}
	l.MaskedPaths, l.ReadonlyPaths = paths(in.Host, hc)
	return l, nil
}
