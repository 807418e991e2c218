import DaemonSupport
import Foundation
import Subprocess
import SystemPackage
import Testing

/// `virt-walkerd exec`: commands for which the node exists. These tests need neither root nor FUSE.
@Suite(.timeLimit(.minutes(15))) struct ExecTests {
  private let node = "/dev/virt_walker"

  /// Runs a command by `exec`, written as a line of shell for sh -c. It must not contain a single quote.
  private func exec(
    _ line: String, _ options: String = "", limit: Duration = .seconds(120)
  ) async throws -> Outcome {
    try await shell("$virt_walkerd exec \(options) -- sh -c '\(line)'", limit: limit)
  }

  // MARK: - The device

  @Test(arguments: ["", "--cpu cortex-a72 --backing anonymous"])
  func checkDevice(options: String) async throws {
    let check = try await shell(
      "$virt_walkerd exec \(options) -- \(repository)/scripts/check-device \(node)",
      limit: .seconds(300))
    #expect(report(tap: check.output, from: "check-device") >= 31)
    #expect(check.succeeded, "\(check.errors)")
  }

  @Test func systemCallsAnswerAsTheTableSays() async throws {
    let probe = try await Probe.shared.path()
    let check = try await shell(
      "$virt_walkerd exec -- \(repository)/scripts/ci/check-file-operations \(node) exec \(probe)",
      limit: .seconds(300))
    #expect(report(tap: check.output, from: "check-file-operations") >= 80)
    #expect(check.succeeded, "\(check.errors)")
  }

  /// The commands of GNU, uutils, busybox and toybox. dd of uutils refuses an output that cannot seek, on the original, too: it does so
  /// with /dev/tty.
  @Test func everydayTools() async throws {
    let tools = try await EverydayTools.shared.path()
    let check = try await shell(
      "$virt_walkerd exec -- \(repository)/scripts/ci/check-tools \(node) \(tools)",
      limit: .seconds(300))
    let lines = check.output.split(separator: "\n")
    #expect(lines.filter { $0.hasPrefix("ok ") }.count >= 80, "\(check.output)\(check.errors)")
    let failed = lines.filter { $0.hasPrefix("not ok ") }
    #expect(failed.count == 3 && failed.allSatisfy { $0.contains(" - uutils: dd ") }, "\(failed)")
  }

  @Test func checkDeviceWithBusybox() async throws {
    let tools = try await EverydayTools.shared.path()
    let check = try await shell(
      "PATH=\(tools)/busybox:$PATH $virt_walkerd exec -- \(repository)/scripts/check-device \(node)",
      limit: .seconds(300))
    #expect(report(tap: check.output, from: "check-device") >= 31)
    #expect(check.succeeded, "\(check.errors)")
  }

  @Test func nodeIsACharacterDevice() async throws {
    let result = try await exec(
      """
      test -c /dev/virt_walker && test ! -f /dev/virt_walker && test ! -s /dev/virt_walker && echo device
      stat -c "%F %a %s %t:%T" /dev/virt_walker; ls -l /dev/virt_walker | cut -c1-10
      stat -Lc %F /dev/stdin </dev/virt_walker
      readlink /proc/self/fd/0 </dev/virt_walker
      """, "--mode 640")
    #expect(
      result.output == """
        device
        character special file 640 0 a:ff
        crw-r-----
        character special file
        /dev/virt_walker

        """, "\(result.errors)")
  }

  /// The commands of everyday, in the shells that are there.
  @Test(arguments: ["dash", "bash"])
  func shellsReadAndWrite(name: String) async throws {
    let result = try await shell(
      """
      command -v \(name) >/dev/null || exit 99
      $virt_walkerd exec -- \(name) -c '
          echo -n A > /dev/virt_walker; head -c1 /dev/virt_walker
          printf B | dd of=/dev/virt_walker 2>/dev/null; dd if=/dev/virt_walker bs=1 count=2 2>/dev/null
          printf C | tee /dev/virt_walker >/dev/null; cat /dev/virt_walker | head -c2
          cd /dev && printf D >>virt_walker && cat virt_walker | head -c1
          exec 3<>virt_walker; printf E >&3; head -c1 <&3; (printf F >&3); head -c1 /dev/fd/3'
      """)
    #expect(result.output == "ABBCCDEF", "\(result.errors)")
  }

  @Test func pythonUsesTheNode() async throws {
    let result = try await shell(
      """
      cat >$PWD/.build/exec-test.py <<'END'
      import os, select, stat, subprocess
      node = "/dev/virt_walker"
      with open(node, "r+b", buffering=0) as file:
          file.write(b"P")
          assert file.read(10) == b"P"
          assert stat.S_ISCHR(os.fstat(file.fileno()).st_mode)
          assert select.select([file], [file], [], 0) == ([file], [file], [])
          assert not file.isatty() and not file.seekable()
          print(subprocess.run(["head", "-c1"], stdin=file, capture_output=True).stdout.decode())
      END
      $virt_walkerd exec -- python3 -B $PWD/.build/exec-test.py
      """)
    #expect(result.output == "P\n", "\(result.errors)")
  }

  /// No other process sees the node, and each command has a machine of its own.
  @Test func nodeIsForTheCommandOnly() async throws {
    let result = try await shell(
      """
      first() { $virt_walkerd exec --name exec_only -- sh -c 'printf 1 >/dev/exec_only; echo begun; read x; head -c1 /dev/exec_only'; }
      second() { $virt_walkerd exec --name exec_only -- sh -c 'head -c1 /dev/exec_only | od -An -tx1'; }
      directory=$(mktemp -d); mkfifo $directory/in
      first <$directory/in >$directory/out & exec 9>$directory/in
      soon grep -q begun $directory/out
      test ! -e /dev/exec_only && echo none outside
      second
      echo >&9; wait; cat $directory/out; rm -r $directory
      """)
    #expect(result.output == "none outside\n 00\nbegun\n1", "\(result.errors)")
  }

  // MARK: - Devices of the library

  /// Calls that wait, signals, poll, ioctl and positions.
  @Test func devicesOfTheLibrary() async throws {
    let client = try await Probe.deviceClient.path()
    let check = try await shell(
      "\(repository)/scripts/ci/check-examples exec \(programs) \(client)", limit: .seconds(300))
    #expect(report(tap: check.output, from: "check-examples") >= 200)
    #expect(check.succeeded, "\(check.errors)")
  }

  // MARK: - Hostile commands

  @Test func hostileCommand() async throws {
    let client = try await Probe.hostileClient.path()
    let check = try await shell(
      "$virt_walkerd exec -- timeout -k 5 100 \(client) \(node)", limit: .seconds(200))
    #expect(report(tap: check.output, from: "hostile-client") >= 90)
    #expect(check.succeeded, "\(check.errors)")
  }

  @Test func signalsDuringCallsLoseNothing() async throws {
    let client = try await Probe.hostileClient.path()
    let check = try await shell(
      "\(programs)/queue-device --exec \(node) timeout -k 5 100 \(client) \(node) queue",
      limit: .seconds(200))
    #expect(report(tap: check.output, from: "hostile-client") == 4)
    #expect(check.succeeded, "\(check.errors)")
  }

  /// A setuid program runs without its rights, and still has the node.
  @Test func setuidProgram() async throws {
    let result = try await shell(
      """
      directory=$(mktemp -d); chmod 755 $directory; cp /usr/bin/id $directory/id
      chmod 4755 $directory/id
      if [ $(id -u) = 0 ]; then user='setpriv --reuid=65534 --regid=65534 --clear-groups'; fi
      $virt_walkerd exec -- ${user-} $directory/id -u; ${user-} id -u; rm -r $directory
      """)
    let lines = result.output.split(separator: "\n")
    #expect(lines.count == 2 && lines.first == lines.last, "\(result.output)\(result.errors)")
  }

  // MARK: - The life of a command

  @Test(
    arguments: [
      ("true", 0), ("sh -c 'exit 7'", 7), ("sh -c 'kill -9 $$'", 137),
      ("/no/such/program", 127), ("/etc/passwd", 126), ("/dev/virt_walker", 126),
    ])
  func statusIsThatOfTheCommand(command: String, status: Int) async throws {
    let result = try await shell("$virt_walkerd exec -- \(command); echo $?")
    #expect(result.output == "\(status)\n", "\(result.errors)")
  }

  @Test(arguments: ["TERM", "INT", "HUP", "USR1"])
  func signalsGoToTheCommand(signal: String) async throws {
    let result = try await shell(
      """
      directory=$(mktemp -d)
      # A shell in the background ignores SIGINT, and so would the command.
      env --default-signal=INT $virt_walkerd exec -- sh -c 'trap "echo got; exit 5" \(signal); echo begun; while :; do sleep 0.05; done' >$directory/out &
      soon grep -q begun $directory/out; kill -\(signal) $!; wait $!; echo $?; cat $directory/out; rm -r $directory
      """)
    #expect(result.output == "5\nbegun\ngot\n", "\(result.errors)")
  }

  /// exec waits for the processes that outlive the command, and they have the node.
  @Test func orphansHaveTheNode() async throws {
    let result = try await exec(
      "(sleep 0.5; printf O >/dev/virt_walker; head -c1 /dev/virt_walker) & exit 3")
    #expect(result.output == "O")
    #expect(result.status == .exited(3))
  }

  /// A signal after the end of the command goes to the processes that it has left.
  @Test func signalEndsOrphans() async throws {
    let result = try await shell(
      """
      directory=$(mktemp -d)
      $virt_walkerd exec -- sh -c 'sleep 1000 & echo $! >'$directory/orphan & server=$!
      soon test -s $directory/orphan; orphan=$(cat $directory/orphan)
      is_orphan() { [ "$(cut -d' ' -f4 /proc/$orphan/stat)" = $server ]; }
      soon is_orphan; kill -TERM $server; wait $server; echo $?
      test ! -e /proc/$orphan && echo ended; rm -r $directory
      """)
    #expect(result.output == "0\nended\n", "\(result.errors)")
  }

  @Test func standardDescriptorsAreThoseOfTheCaller() async throws {
    let result = try await shell(
      """
      echo input | $virt_walkerd exec -- sh -c 'cat; echo error >&2; ls /proc/$$/fd | tr "\\n" " "' 2>&1
      $virt_walkerd exec -- sh -c 'ls /proc/$$/fd | tr "\\n" " "' <&- 3</dev/null
      """)
    // A shell has no other descriptor than those that it gets.
    #expect(result.output == "input\nerror\n0 1 2 1 2 3 ", "\(result.errors)")
  }

  @Test(arguments: [
    "--detach", "--backend fuse", "--count 2", "--pid-file /tmp/x", "--poll never",
  ])
  func optionsWithoutMeaningAreRefused(option: String) async throws {
    let result = try await shell("$virt_walkerd exec \(option) -- true; echo $?")
    #expect(result.output == "64\n")
    #expect(result.errors.contains("\(option.prefix { $0 != " " }) is not an option of exec: "))
  }

  @Test func commandIsNeeded() async throws {
    for arguments in ["", "true", "--"] {
      let result = try await shell("$virt_walkerd exec \(arguments); echo $?")
      #expect(result.output == "64\n")
      #expect(result.errors.contains("give it after --"))
    }
  }

  @Test func execInsideOfExec() async throws {
    let result = try await shell("$virt_walkerd exec -- $virt_walkerd exec -- true; echo $?")
    #expect(result.output == "69\n")
    #expect(result.errors.contains("inside of another exec"))
  }

  // MARK: - Your own code

  /// The example module waits in read, and has poll. The server ends no file with a call that waits in it.
  @Test func moduleWithCallsThatWait() async throws {
    let result = try await exec(
      """
      (sleep 0.3; printf hello >/dev/virt_walker) & timeout 20 head -c5 /dev/virt_walker
      timeout 0.5 head -c1 /dev/virt_walker; echo " $?"
      printf x >/dev/virt_walker; head -c1 /dev/virt_walker
      """, "--module \(repository)/Examples/lab/right/module-queue.c")
    #expect(result.output == "hello 124\nx", "\(result.errors)")
    #expect(result.errors == "")
  }

  @Test func codeThatDoesNotCompile() async throws {
    let result = try await shell(
      "$virt_walkerd exec --module /dev/null -- echo ran; echo $?")
    #expect(result.output == "65\n" || result.output == "66\n", "\(result.errors)")
  }

  @Test func logHasTheLinesOfBothKernels() async throws {
    let result = try await shell(
      """
      log=$(mktemp); $virt_walkerd exec --log-level info --log-file $log -- sh -c 'printf A >/dev/virt_walker; echo to the caller >&2'
      cat $log; rm $log
      """)
    #expect(
      result.output == """
        guest: write length: 1 bytes
        host: MMIO to HIDE and SEEK register detected, len: 1

        """)
    #expect(result.errors == "to the caller\n")
  }

  // MARK: - The tree

  @Test func treeIsThereWithoutFUSE() async throws {
    let result = try await exec(
      """
      echo -n A >/dev/virt_walker
      $virt_walkerd tree | tr "\\n" " "; echo
      $virt_walkerd tree pte; $virt_walkerd walk | grep hidden
      $virt_walkerd control guest ldrb w0,[0x40000000] | head -2
      $virt_walkerd control nonsense; echo $?
      $virt_walkerd tree control; $virt_walkerd tree nothing; echo $?
      $virt_walkerd tree stats text; echo $?
      $virt_walkerd tree guest/dmesg_pipe | tail -1 | sed "s,.*] ,,"
      $virt_walkerd tree reset 1; $virt_walkerd tree pte
      $virt_walkerd tree --tree @missing; echo $?
      screen=$(mktemp)
      (until grep -q "walk of 0x40000000" $screen; do sleep 0.05; done; printf q) | script -qfec "$virt_walkerd watch" $screen >/dev/null
      echo $?; rm $screen
      """)
    #expect(
      result.output == """
        control guest/dmesg guest/dmesg_pipe host/dmesg host/dmesg_pipe ipa_range metrics pte reset \
        stage2_levels stage2_page_tables stats trace trace_pipe walk walk.svg\u{20}
        02080002004007fd
              ======== hidden byte 0x41 'A'
        guest ldrb w0,[0x40000000]
          run retired pc +4 x0 0x0
        65
        1:1: expected guest or host, found 'nonsense'
        66
        66
        write length: 1 bytes
        00000002004007fd
        69
        0

        """, "\(result.errors)")
    for reason in [
      "1:1: expected guest or host, found 'nonsense': docs/scenario.md has the steps",
      "cannot read nothing of \(node): No such file or directory: virt-walkerd tree lists the files",
      "cannot use the socket @missing: Connection refused: the command of exec has ended",
    ] {
      #expect(result.errors.contains("virt-walkerd: \(reason)\n"), "\(result.errors)")
    }
  }

  /// Two commands with the same node: each has its own tree. From outside, a name selects one.
  @Test func treeFromOutside() async throws {
    let result = try await shell(
      """
      unset VIRT_WALKERD_TREE
      work=$(mktemp -d) && cd "$work" || exit 99
      for byte in A B; do
          $virt_walkerd exec --name vw_outside -- sh -c "echo -n $byte >/dev/vw_outside; echo \\$VIRT_WALKERD_TREE >$byte; exec sleep 60" & pids="$pids $!"
      done
      until [ -s A ] && [ -s B ]; do sleep 0.01; done
      $virt_walkerd tree --tree "$(cat A)" pte; $virt_walkerd tree --tree "$(cat B)" pte
      $virt_walkerd walk --name vw_outside; echo $?
      kill $pids; wait
      $virt_walkerd walk --name vw_outside; echo $?
      grep -c -e "$(cat A)" -e "$(cat B)" /proc/net/unix
      cd / && rm -r "$work"
      """)
    #expect(result.output == "02080002004007fd\n02100002004007fd\n69\n69\n0\n", "\(result.errors)")
    #expect(
      result.errors.contains("several commands of exec have /dev/vw_outside: give one of --tree @"))
  }

  @Test(.enabled(if: geteuid() == 0, "needs root: it becomes another user"))
  func treeIsForOneUser() async throws {
    let result = try await exec(
      "setpriv --reuid 65534 --clear-groups $virt_walkerd tree pte; echo $?")
    #expect(result.output == "77\n", "\(result.errors)")
    #expect(result.errors.contains("it belongs to another user"), "\(result.errors)")
  }

  /// Clients of the socket that keep to no rule. The command goes on, and so does the next client.
  @Test func hostileClientsOfTheTree() async throws {
    let result = try await exec(
      """
      python3 - <<END
      import os, socket, sys
      name = b"\\0" + os.environ["VIRT_WALKERD_TREE"][1:].encode()
      def connect():
          client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
          client.connect(name)
          return client
      # Many connections, most of which are refused.
      clients = [connect() for _ in range(200)]
      for client in clients:
          try: client.send(b"list")
          except OSError: pass
      for client in clients: client.close()
      # Requests whose answers nobody reads, and clients that end in the middle of their work.
      for _ in range(20):
          client = connect(); client.setblocking(False)
          try:
              while True: client.send(b"read\\0walk")
          except OSError: pass
          worker = connect()
          worker.send(b"write\\0control\\0" + b"guest ldrb w0,[0x40000000]\\n" * 3000)
          worker.close()
      # Requests that mean nothing.
      for request in [b"", b"\\0", b"read", b"read\\0", b"read\\0..", b"read\\0guest", b"read\\0guest/../pte", b"write\\0pte\\0x",
                      b"write\\0guest\\0x", b"write\\0reset\\0nonsense", b"list\\0x", b"\\xff" * 90000]:
          client = connect(); client.settimeout(30)
          client.send(request)
          if request: assert client.recv(100).startswith(b"error\\0"), request
      client = connect()
      client.sendmsg([b"read\\0pte"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, bytes(4))])
      client.close()
      END
      echo $?
      echo -n A >/dev/virt_walker; $virt_walkerd tree pte
      """)
    #expect(result.output == "0\n02080002004007fd\n", "\(result.errors)")
  }

  // MARK: - Other users and namespaces

  /// In a user namespace, the root user has no rights outside of it. A machine that has no such namespaces for this user is left out.
  @Test func userNamespace() async throws {
    let result = try await shell(
      """
      unshare --user --map-root-user true 2>/dev/null || { echo no namespaces; exit; }
      unshare --user --map-root-user --mount $virt_walkerd exec -- \(repository)/scripts/check-device \(node)
      """, limit: .seconds(300))
    guard result.output != "no namespaces\n" else { return }
    #expect(report(tap: result.output, from: "check-device") >= 31)
    #expect(result.succeeded, "\(result.errors)")
  }

  /// Root tries an ordinary user; an ordinary user has run all other tests.
  @Test(.enabled(if: geteuid() == 0, "the other tests were run by an ordinary user"))
  func ordinaryUser() async throws {
    let result = try await shell(
      """
      directory=$(mktemp -d); chmod 755 $directory; cp $virt_walkerd \(repository)/scripts/check-device $directory
      setpriv --reuid=65534 --regid=65534 --clear-groups env -C / $directory/virt-walkerd exec -- $directory/check-device \(node)
      status=$?; rm -r $directory; exit $status
      """, limit: .seconds(300))
    #expect(report(tap: result.output, from: "check-device") >= 31)
    #expect(result.succeeded, "\(result.errors)")
  }

  /// A kernel or a profile that forbids a part: the message has the part and the next step.
  @Test(.enabled(if: geteuid() == 0, "needs root: it installs filters that forbid calls"))
  func forbiddenCalls() async throws {
    let probe = try await Probe.refuser.path()
    for (call, words) in [
      ("seccomp", "a container's profile has to allow seccomp(2)"),
      ("process_vm_readv", "allow process_vm_readv(2)"),
    ] {
      let result = try await shell("\(probe) \(call) $virt_walkerd exec -- echo ran; echo $?")
      #expect(result.output == "77\n", "\(call): \(result.output)\(result.errors)")
      #expect(result.errors.contains(words), "\(call): \(result.errors)")
    }
  }
}
