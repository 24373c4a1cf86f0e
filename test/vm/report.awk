# Tells the output of "PACKAGE.test -test.v" (one file) as go test tells it without -v: of
# a test that failed everything, of the others nothing but why they were skipped.
#   -v package=NAME -v status=EXIT-STATUS -v begin=S -v end=S -v must=REGEXP
# A test that is skipped for a reason which matches must counts as failed: this machine
# was booted because it has that. So does a package of which no test ran. The exit status
# is 0 if nothing failed.

function name(line) { sub(/^ *(===|---) +[A-Z]+:? +/, "", line); sub(/ \([0-9.]+s\)$/, "", line); return line }
function trim(line) { sub(/^ +/, "", line); return line }

dead { print; next } # a panic or a timeout: no test ends any more
/^(panic:|fatal error:|SIG[A-Z]+:)/ { dead = 1; printf "%s", said[now]; print; next }
/^=== (RUN|NAME|CONT|PAUSE) / { now = name($0); next }
/^ *--- PASS: / { now = name($0); passed++; next }
/^ *--- SKIP: / {
  now = name($0)
  if (must == "" || said[now] !~ must) { skipped++; print "    skipped " now ": " trim(first[now]); next }
  failed++
  printf "--- FAIL: %s must not be skipped here\n%s", now, said[now]
  next
}
/^ *--- FAIL: / { now = name($0); failed++; print; printf "%s", said[now]; said[now] = ""; next }
/^(PASS|FAIL)$/ { next }
{ if (!(now in first)) first[now] = $0; said[now] = said[now] $0 "\n" }
END {
  ran = passed + skipped + failed
  if (!dead && (status && !failed || !ran)) printf "%s", said[now] # it ended in another way
  bad = status || failed || !ran
  printf "%s\t%s\t%.1fs (%d passed, %d skipped, %d failed)\n", bad ? "FAIL" : "ok  ", package, end - begin, passed, skipped, failed
  exit bad != 0
}
