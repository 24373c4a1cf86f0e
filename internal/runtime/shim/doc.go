// Package shim is the body of isle-shim: the parent of every container of one
// isled instance. It holds their pipes and terminals, writes their logs,
// collects their exit codes and serves exec sessions, so that isled may stop,
// crash and be upgraded while containers run. It knows nothing of images,
// networks, restart policies or Docker, and decides nothing: it does what it
// is told and reports what ended. It imports the standard library, x/sys and
// our own jsonlog and wire, because it must be small (0.05 MB per container)
// and must not die.
//
// # Life
//
// isled's client (package runtime) starts it with --background: the program
// starts itself again in a session of its own, and the first one returns when
// the second serves. A lock in the run directory makes it the only one there.
// It leaves when for --patience nobody was connected, no container is left
// and every exit was acknowledged. SIGTERM makes it leave only when there are
// no containers. (A unit file of isled wants KillMode=process.)
//
// # Protocol
//
// On <run-dir>/shim.sock (mode 0600, root or our own user only) a connection
// carries requests, each answered in turn. A frame is a length of four bytes,
// big endian, at most 8 MiB, and JSON. A request names the version of the
// protocol that it is written in; "hello" is understood in every version and
// tells which ones the shim speaks.
//
//	request  body           answer      meaning
//	hello    –              Hello       versions, pid and release of the shim
//	create   Create         Started     mount, make the container, leave its process waiting; not for an id that exists
//	start    Proc           –           let it go
//	exec     Exec           Started     start another process in it
//	kill     Kill           –           signal one process, or all in the cgroup
//	pause    Proc           –           freeze
//	resume   Proc           –           thaw
//	update   Update         –           change limits
//	delete   Proc           –           kill what is left, remove, forget; nothing to delete is no error
//	resize   Resize         –           size of the terminal; refused at once when there is none
//	pids     Proc           [int]       processes in the cgroup
//	list     –              [Status]    processes, and exits not acknowledged
//	ack      Proc           –           forget an exit
//	exits    –              – Exit …    then one answer for every exit not acknowledged, and for those to come, until the client leaves
//	attach   Attach         – stream    then stream frames in both directions
//
// A stream frame is a byte that says what it is, a length of four bytes, and
// at most 32 KiB:
//
//	0 stdin        to the shim
//	1 stdout       to the client; all output of a terminal
//	2 stderr       to the client
//	3 close stdin  to the shim: no more input from this client
//	4 end          to the client: the process has ended, this was all
//	5 dropped      to the client: it was too slow; the payload says so
//
// Any number of clients may be attached. Output goes to the log first, then to
// a queue of each client. A client that was there before the start is who the
// output is for (as in "run … | less"): while its queue is full, the process waits, as
// long as the connection lives. One that came later only watches: it is dropped.
// A client may attach to a process that is yet to come (Await).
//
// # Exits
//
// An exit is reported after the output up to it is in the log and with the
// clients, or two seconds later when others hold the pipes; before anything is
// cleaned up; and until it is acknowledged, also by the next shim: it is a file
// in <run-dir>/shim/exits until then.
//
// # Threads
//
// Go moves goroutines between threads, and namespaces belong to threads. What
// must happen in another mount namespace (mounting the root file system, hiding the v2 cgroup tree
// from crun, starting the runtime so that it inherits both) runs on a thread
// that is locked to its goroutine and is thrown away with it; see view.go. The
// root file system is then mounted in the container's namespace and nowhere else: it
// goes when the container's last process does.
//
// Only reaper starts children and only reaper waits for them: the runtime's
// children become ours (we are a subreaper), so waiting is by "any child", and
// os/exec beside it would lose its statuses to it.
//
// # When the shim is killed
//
// Containers live on, as orphans of process 1: their stdout is a pipe that
// they hold open for reading too, so that they wait rather than die of SIGPIPE.
// The next shim finds them by its state files (pid and start time), watches
// them by pidfd, finds their pipes again among their descriptors, and goes on
// with their logs. Their code is told by the kernel from 6.15 on, and is 255
// before. Terminals and stdin do not survive: their other end was the shim.
package shim
