// Package spec writes the OCI configuration of a container. Build is a pure
// function of its Input: everything it has to know of the machine is found
// before (DetectHost, FindDevices, ResolveUser) and handed in, so that what a
// flag does can be read from testdata.
//
// It does not create, run or mount anything.
//
// What an image may say is an allow-list: user, environment, command, working
// directory and stop signal, all merged into Record.Config before Build. No
// label, annotation or other field of an image is looked at here
// (CVE-2026-94603).
//
// Traps:
//   - A process that is not root gets no effective capabilities, as after an
//     execve(2); its bounding set stays.
//   - Inheritable capabilities are always empty (CVE-2022-24769).
//   - Without CAP_SYS_RESOURCE hard limits can only go down: defaults are
//     clamped, what a person asked for is an error.
package spec
