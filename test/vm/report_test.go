// Package vm boots Debian's kernels under qemu and runs suites of tests there: test/vm/run.
package vm

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
)

// TestReport: what the virtual machine prints of a test binary's output.
func TestReport(t *testing.T) {
	for name, c := range map[string]struct{ in, status, want string }{
		"all passed": {
			"=== RUN   TestA\n    a_test.go:1: noise\n--- PASS: TestA (0.10s)\nPASS\n", "0",
			"ok  \tisle/x\t1.5s (1 passed, 0 skipped, 0 failed)\n",
		},
		"a failure among parallel tests": {
			"=== RUN   TestA\n=== PAUSE TestA\n=== RUN   TestB\n    b_test.go:1: noise\n=== CONT  TestA\n    a_test.go:2: broken\n        very\n=== NAME  TestB\n    b_test.go:3: more noise\n" +
				"--- PASS: TestB (0.00s)\n--- FAIL: TestA (0.10s)\nFAIL\n", "1",
			"--- FAIL: TestA (0.10s)\n    a_test.go:2: broken\n        very\nFAIL\tisle/x\t1.5s (1 passed, 0 skipped, 1 failed)\n",
		},
		"skipped": {
			"=== RUN   TestA\n    a_test.go:1: TCX is not supported\n--- SKIP: TestA (0.00s)\nPASS\n", "0",
			"    skipped TestA: a_test.go:1: TCX is not supported\nok  \tisle/x\t1.5s (0 passed, 1 skipped, 0 failed)\n",
		},
		"skipped for what the machine has": {
			"=== RUN   TestA\n    a_test.go:1: ipvlan is not supported\n--- SKIP: TestA (0.00s)\nPASS\n", "0",
			"--- FAIL: TestA must not be skipped here\n    a_test.go:1: ipvlan is not supported\nFAIL\tisle/x\t1.5s (0 passed, 0 skipped, 1 failed)\n",
		},
		"a panic": {
			"=== RUN   TestA\n    a_test.go:1: before\npanic: test timed out after 2m0s\n\ngoroutine 1 [running]:\n", "2",
			"    a_test.go:1: before\npanic: test timed out after 2m0s\n\ngoroutine 1 [running]:\nFAIL\tisle/x\t1.5s (0 passed, 0 skipped, 0 failed)\n",
		},
		"no test":                {"testing: warning: no tests to run\nPASS\n", "0", "testing: warning: no tests to run\nFAIL\tisle/x\t1.5s (0 passed, 0 skipped, 0 failed)\n"},
		"an end of another kind": {"lab: no root\n", "1", "lab: no root\nFAIL\tisle/x\t1.5s (0 passed, 0 skipped, 0 failed)\n"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command("awk", "-f", "report.awk", "-v", "package=isle/x", "-v", "status="+c.status, "-v", "begin=1", "-v", "end=2.5", "-v", "must=ipvlan")
			cmd.Stdin = strings.NewReader(c.in)
			out, err := cmd.Output()
			if string(out) != c.want {
				t.Errorf("got\n%s\nwant\n%s", out, c.want)
			}
			var exit *exec.ExitError
			if failed := errors.As(err, &exit); failed != strings.Contains(c.want, "FAIL") {
				t.Errorf("exit status: %v", err)
			}
		})
	}
}
