import DaemonSupport
import Foundation
import Glibc
import Subprocess
import SystemPackage
import Testing

/// Tests of the start and the end of the daemon. Each test checks that nothing is left.
@Suite(.endingDaemons, .timeLimit(.minutes(15))) struct LifeTests {
  private let node = "/dev/\(RunningDaemon.uniqueName())"
  private var name: String { String(node.dropFirst(5)) }

  @Test(arguments: ["TERM", "INT", "HUP", "QUIT"])
  func signalTakesTheNodeAway(signal: String) async throws {
    let run = try await shell(
      """
      $virt_walkerd serve --name \(name) >/tmp/\(name) 2>&1 & pid=$!
      soon grep -q 'is ready' /tmp/\(name)
      rm /tmp/\(name)
      echo -n S > \(node) && head -c1 \(node)
      kill -\(signal) $pid
      wait $pid
      """)
    #expect(run.output == "S")
    #expect(run.succeeded, "\(run.status)")
    try await expectNothingLeft(of: node)
  }

  @Test func nohupIsRespected() async throws {
    let run = try await shell(
      """
      nohup $virt_walkerd serve --detach --name \(name) >/dev/null
      pid=$($virt_walkerd status | sed -n 's|^\(node): .*pid \\([0-9]*\\).*|\\1|p')
      kill -HUP $pid; sleep 0.2
      echo -n N > \(node) && head -c1 \(node)
      $virt_walkerd stop --name \(name)
      """)
    #expect(run.output == "N")
    try await expectNothingLeft(of: node)
  }

  @Test func clientThatHoldsTheNodeDoesNotKeepIt() async throws {
    let daemon = try await RunningDaemon()
    let run = try await shell(
      "exec 3<>\(daemon.node); $virt_walkerd stop \(daemon.selector) && ! head -c1 <&3")
    #expect(run.succeeded, "\(run.errors)")
    try await expectNothingLeft(of: daemon.node)
  }

  @Test func killedDaemonLeavesNothing() async throws {
    let file = "/tmp/\(name).pid"
    let daemon = try await RunningDaemon("--pid-file \(file)", name: name)
    let client = try await shell(
      """
      exec 3<>\(node); kill_served $(cat \(file)); head -c1 <&3
      """)
    #expect(client.errors.contains("error") || client.errors.contains("not connected"))
    #expect(!FileManager.default.fileExists(atPath: file))
    try await expectNothingLeft(of: daemon.node)
    try await RunningDaemon(name: name).stop()
  }

  @Test func nextStartWaitsForTheKeeper() async throws {
    let daemon = try await RunningDaemon(name: name)
    let pid = try await daemon.pid
    let run = try await shell(
      """
      keeper=$(pgrep -P \(pid)); kill -STOP $keeper; kill -KILL \(pid)
      { sleep 0.5; kill -CONT $keeper; } &
      $virt_walkerd serve --detach --name \(name) && printf A >\(node) && head -c1 \(node)
      """)
    #expect(run.output.hasSuffix("A"), "\(run.errors)")
    let stop = try await shell("$virt_walkerd stop --name \(name)")
    #expect(stop.succeeded, "\(stop.errors)")
    try await expectNothingLeft(of: node)
  }

  @Test func keepersEndIsTold() async throws {
    let file = "/tmp/\(name).log"
    let daemon = try await RunningDaemon("--log-file \(file)", name: name)
    let pid = try await daemon.pid
    let run = try await shell(
      """
      pkill -KILL -P \(pid); printf A >\(node); head -c1 \(node)
      soon grep -q keeper \(file); cat \(file); rm \(file)
      """)
    #expect(run.output.hasPrefix("A"))
    #expect(run.output.contains("the keeper was killed, so nothing removes \(node)"))
    _ = try await shell("$virt_walkerd stop --name \(name)")
    // The keeper is dead, and the daemon has no right to remove the node. The next daemon removes it.
    try await RunningDaemon(name: name).stop()
  }

  /// A daemon that root started serves as nobody, with only its open descriptors. Its keeper has the capabilities that
  /// unmounting needs.
  @Test func rightsAreGivenUp() async throws {
    let daemon = try await RunningDaemon(name: name)
    let pid = try await daemon.pid
    let run = try await shell(
      """
      fields() { sed -n 's/^\\(Uid\\|Gid\\|Groups\\|Cap...\\|NoNewPrivs\\|Seccomp\\):[[:space:]]*//p' /proc/$1/status | tr -s '\\t ' ' '; }
      fields \(pid); echo keeper; fields $(pgrep -P \(pid)) | sed -n '1,2p;5p;7p;9,10p'
      """)
    #expect(
      run.output == """
        65534 65534 65534 65534
        65534 65534 65534 65534

        0000000000000000
        0000000000000000
        0000000000000000
        0000000000000000
        0000000000000000
        1
        2
        keeper
        0 0 0 0
        0 0 0 0
        0000000000200000
        0000000000000000
        1
        2

        """, "\(run.errors)")
    try await daemon.stop()
  }

  @Test func userIsWhoIsSaid() async throws {
    let daemon = try await RunningDaemon("--user daemon", name: name)
    let pid = try await daemon.pid
    let user = try await shell(
      "stat -c %U /proc/\(pid)/task; ps -o user= -p \(pid); printf U >\(node); head -c1 \(node)")
    #expect(user.output.hasSuffix("daemon\nU"), "\(user.errors)")
    try await daemon.stop()

    let unknown = try await shell("$virt_walkerd serve --name \(name) --user no-such-user")
    #expect(unknown.status == .exited(64))
    #expect(unknown.errors.contains("there is no user 'no-such-user': getent passwd lists them"))
  }

  @Test func killedDaemonIsClearedAwayByTheNext() async throws {
    let daemon = try await RunningDaemon()
    try await daemon.killWithKeeper()
    let dead = try await shell("head -c1 \(daemon.node)")
    #expect(!dead.succeeded)
    let status = try await shell("$virt_walkerd status")
    #expect(status.output.contains("\(daemon.node): pid"))
    #expect(status.output.contains("was killed"))

    let next = try await RunningDaemon(name: String(daemon.node.dropFirst(5)))
    let answer = try await shell("echo -n K > \(next.node); head -c1 \(next.node)")
    #expect(answer.output == "K")
    try await next.stop()
  }

  /// The node of a killed daemon was unmounted by hand. The next daemon recognizes and removes the file below the
  /// mount.
  @Test func fileOfAKilledDaemonIsClearedAway() async throws {
    let daemon = try await RunningDaemon()
    try await daemon.killWithKeeper()
    let unmounted = try await shell(
      // Another program that looks at all mounts may have the mount open for a moment.
      "soon umount \(daemon.node) && cat \(daemon.node)")
    #expect(unmounted.output == "mount point of virt-walkerd, which removes it when it ends\n")
    try await RunningDaemon(name: String(daemon.node.dropFirst(5))).stop()
  }

  @Test func mountTakenAwayEndsTheDaemon() async throws {
    let run = try await shell(
      """
      $virt_walkerd serve --name \(name) >/tmp/\(name) 2>/tmp/\(name).log & pid=$!
      soon grep -q 'is ready' /tmp/\(name)
      umount -l \(node)
      wait $pid; status=$?
      cat /tmp/\(name).log; rm /tmp/\(name) /tmp/\(name).log; exit $status
      """)
    #expect(run.status == .exited(69))
    #expect(run.output.contains("\(node) was taken away from outside"))
    try await expectNothingLeft(of: node)
  }

  /// The kernel's table of mounts has \040 for a space and \134 for a backslash.
  @Test func strangeNamesAreFoundAmongTheMounts() async throws {
    let run = try await shell(
      """
      node='/tmp/\(name) \\040\\ é'
      serve() { $virt_walkerd serve --detach --path "$node"; }
      pid() { $virt_walkerd status | sed -n 's|.*\(name) .*: fuse, pid \\([0-9]*\\).*|\\1|p'; }
      serve && pid=$(pid) && pkill -KILL -P $pid && kill -KILL $pid || exit 99
      soon test ! -e /proc/$pid/exe
      serve && printf A >"$node" && head -c1 "$node" || exit 99
      pid=$(pid); umount -l "$node"
      soon test ! -e /proc/$pid/exe
      ls -d "$node" || grep '\(name)' /proc/self/mounts || echo gone
      """)
    #expect(run.output.hasSuffix("Agone\n"), "\(run.output)\(run.errors)")
  }

  @Test func secondDaemonIsRefusedAndTheFirstGoesOn() async throws {
    let daemon = try await RunningDaemon()
    let pid = try await daemon.pid
    for option in ["", "--detach"] {
      let second = try await shell("$virt_walkerd serve \(daemon.selector) \(option)")
      #expect(second.status == .exited(73))
      #expect(
        second.errors.contains(
          "\(daemon.node) is already served by pid \(pid): virt-walkerd stop \(daemon.selector), or choose another"
        ))
    }
    let answer = try await shell("echo -n F > \(daemon.node); head -c1 \(daemon.node)")
    #expect(answer.output == "F")
    try await daemon.stop()
  }

  /// The messages go to the log. The caller of a start that fails sees them, too, but not the older lines.
  @Test func failedStartInTheBackgroundShowsItsLog() async throws {
    let run = try await shell(
      """
      log=$(mktemp) && echo old >"$log"
      $virt_walkerd serve --detach --log-file "$log" --path /dev/null/node
      echo $?; tail -n +2 "$log"; rm "$log"
      """)
    #expect(run.errors.contains("/dev/null/node"), "\(run.errors)")
    #expect(!run.errors.contains("old"), "\(run.errors)")
    let lines = run.output.split(separator: "\n", maxSplits: 1)
    #expect(lines.first != "0" && lines.last.map { run.errors == $0 } ?? false, "\(run.output)")
  }

  @Test func ofManyStartsAtOnceOneWins() async throws {
    let run = try await shell(
      """
      for i in 1 2 3 4 5 6; do
        ($virt_walkerd serve --detach --name \(name) >/dev/null 2>&1; echo $?) &
      done | sort -n | uniq -c | tr -s ' '
      """)
    #expect(run.output == " 1 0\n 5 73\n")
    let stop = try await shell("$virt_walkerd stop --name \(name)")
    #expect(stop.succeeded)
    try await expectNothingLeft(of: node)
  }

  @Test func fileThatIsNotOursStays() async throws {
    let run = try await shell(
      "printf A >\(node); $virt_walkerd serve --name \(name); echo $?; cat \(node); rm \(node)")
    #expect(run.output == "73\nA")
    #expect(run.errors.contains("\(node) exists and is not ours"))
    #expect(run.errors.contains("rm \(node)"))
    try await expectNothingLeft(of: node)
  }

  @Test func modeOwnerGroupAndTheirChange() async throws {
    let daemon = try await RunningDaemon("--mode 0640 --owner nobody --group 12345")
    let made = try await shell("stat -c '%a %U %g' \(daemon.node)")
    #expect(made.output == "640 nobody 12345\n")
    let changed = try await shell(
      "chmod 604 \(daemon.node); chown 0:0 \(daemon.node); stat -c '%a %u %g' \(daemon.node)")
    #expect(changed.output == "604 0 0\n")
    try await daemon.stop()
  }

  /// The mode of the node decides about access for users other than root.
  @Test func modeLetsOthersInOrKeepsThemOut() async throws {
    let asNobody = "setpriv --reuid=65534 --regid=65534 --clear-groups"
    let open = try await RunningDaemon("--mode 0666")
    let allowed = try await shell(
      "\(asNobody) sh -c 'printf O > \(open.node) && head -c1 \(open.node)'")
    #expect(allowed.output == "O")
    try await open.stop()
    let closed = try await RunningDaemon()
    let refused = try await shell("\(asNobody) head -c1 \(closed.node)")
    #expect(!refused.succeeded)
    #expect(refused.errors.contains("Permission denied"))
    try await closed.stop()
  }

  @Test func pathNamesANodeAnywhere() async throws {
    let directory = "/tmp/\(name)"
    let run = try await shell(
      """
      mkdir \(directory) && cd \(directory)
      $virt_walkerd serve --detach --path ./node --pid-file pid && printf P > node && head -c1 node
      grep -q "^$(cat pid)$" /proc/$(cat pid)/comm || [ -d /proc/$(cat pid) ] || exit 1
      cd / && $virt_walkerd stop --path \(directory)/node
      rmdir \(directory)
      """)
    #expect(
      run.output
        == "\(directory)/node is ready (fuse, pid \(run.output.firstNumber(after: "pid ")))\nP")
    #expect(run.succeeded, "\(run.errors)")
  }

  /// A second daemon is refused, and leaves the pid file of the first daemon alone. The file is gone when stop returns.
  @Test func pidFileIsTheFirstDaemons() async throws {
    let daemon = try await RunningDaemon("--pid-file /tmp/\(name)")
    let pid = try await daemon.pid
    let run = try await shell(
      """
      $virt_walkerd serve \(daemon.selector) --pid-file /tmp/\(name) 2>/dev/null; echo $?; cat /tmp/\(name)
      $virt_walkerd stop \(daemon.selector); ls /tmp/\(name)
      """)
    #expect(run.output == "73\n\(pid)\n")
    try await expectNothingLeft(of: daemon.node)
  }

  @Test func pidFileOfAKilledDaemonIsReplaced() async throws {
    let file = "/tmp/\(name).pid"
    let first = try await RunningDaemon("--pid-file \(file)", name: name)
    try await first.killWithKeeper()
    let second = try await RunningDaemon("--pid-file \(file)", name: name)
    let pid = try await second.pid
    #expect(try String(contentsOfFile: file, encoding: .utf8) == "\(pid)\n")
    try await second.stop()
    #expect(!FileManager.default.fileExists(atPath: file))
  }

  @Test func logShowsBothKernels() async throws {
    let file = "/tmp/\(name).log"
    let daemon = try await RunningDaemon("--log-level info --log-file \(file)", name: name)
    _ = try await shell("printf AB | dd of=\(node) bs=2 count=1; head -c1 \(node)")
    try await daemon.stop()
    let log = try String(contentsOfFile: file, encoding: .utf8).split(separator: "\n")
    unlink(file)
    #expect(
      Array(log.dropFirst().dropLast()) == [
        "guest: write length: 2 bytes",
        "host: MMIO to HIDE and SEEK register detected, len: 1",
        // The rest of dd's block.
        "guest: write length: 1 bytes",
        "host: MMIO to HIDE and SEEK register detected, len: 1",
        "guest: read length: 1 bytes",
        "host: MMIO to HIDE and SEEK register detected, len: 1",
      ])
    #expect(log.first?.contains("backend fuse: ") == true)
    #expect(log.last == "virt-walkerd: SIGTERM: removing \(node)")
  }

  /// Standard error is a pipe without a reader. The device still answers.
  @Test func unreadLogDoesNotStopTheDevice() async throws {
    let run = try await shell(
      """
      mkfifo /tmp/\(name)
      exec 3<>/tmp/\(name); rm /tmp/\(name)
      $virt_walkerd serve --log-level info --name \(name) >/tmp/\(name) 2>&3 &
      soon grep -q 'is ready' /tmp/\(name)
      rm /tmp/\(name)
      dd if=/dev/zero of=\(node) bs=1 count=3000 2>/dev/null && head -c3000 \(node) | wc -c
      $virt_walkerd stop --name \(name)
      """)
    #expect(run.succeeded, "\(run.errors)")
    #expect(run.output == "3000\n")
    try await expectNothingLeft(of: node)
  }

  @Test func systemdIsNotified() async throws {
    let socketPath = "/tmp/\(name).notify"
    let listener = try NotificationListener(socketPath)
    let start = try await shell(
      "$virt_walkerd serve --detach --name \(name)",
      environment: ["NOTIFY_SOCKET": socketPath])
    #expect(start.succeeded)
    #expect(try listener.receive() == "READY=1\nSTATUS=serving \(node) by fuse")
    #expect(try await shell("$virt_walkerd stop --name \(name)").succeeded)
    #expect(try listener.receive() == "STOPPING=1")
  }

  @Test func stopOfNothingSaysSo() async throws {
    let stop = try await shell("$virt_walkerd stop --name \(name)")
    #expect(stop.status == .exited(69))
    #expect(stop.errors.contains("nothing serves \(node)"))
  }
}

/// Tests of errors on the command line: the message, the exit status, and that nothing is left.
@Suite(.endingDaemons, .timeLimit(.minutes(15))) struct UsageTests {
  @Test(arguments: [
    ("--memory 1P", 64, "4M to 1023G"),
    ("--memory 3M", 64, "4M to 1023G"),
    ("--memory 4G --ipa 32", 64, "with 32 bits of IPA: 4M to 3G"),
    ("--memory 4198401", 64, "is not a whole number of 4K pages"),
    ("--memory 65540K --granule 64K", 64, "is not a whole number of 64K pages"),
    ("--memory 5M --backing hugetlb", 64, "is not a whole number of 2M pages"),
    ("--ipa 31", 64, "32 to 40 bits"),
    ("--ipa 48", 64, "cortex-a76 has 32 to 40 bits"),
    ("--granule 8K", 64, "16K"),
    ("--memory 12Q", 64, "'12Q' is not a size"),
    ("--memory 99999999999999999999", 64, "is not a size"),
    ("--memory 18446744073709551615G", 64, "is more than any guest can have"),
    ("--mode 0888", 64, "'0888' is not a mode"),
    ("--mode 1777", 64, "'1777' is not a mode"),
    ("--owner no-such-user", 64, "there is no user 'no-such-user'"),
    ("--group no-such-group", 64, "there is no group 'no-such-group'"),
    ("--cpu cortex-a53", 64, "cortex-a72"),
    ("--backing none", 64, "huge"),
    ("--backend scsi", 64, "auto"),
    ("--log-level loud", 64, "no log level 'loud'"),
    ("--name ../x", 64, "'../x' is not a device name"),
    ("--name .x", 64, "'.x' is not a device name"),
    ("--name=-x", 64, "commands would take a name that begins with '-' for an option"),
    ("--path /", 64, "'/' is not the path of a file"),
    ("--path /tmp/x --name y", 64, "give one of them"),
    ("--path /tmp/x --backend cuse", 64, "CUSE makes nodes in /dev only"),
    ("--no-such-option", 64, "Unknown option"),
    ("--path /no/such/directory/node", 73, "/no/such/directory"),
    ("--name null", 73, "/dev/null exists and is not ours (a character device)"),
    ("--path /tmp", 73, "/tmp exists and is not ours (a directory)"),
    ("--pid-file /etc/passwd", 73, "/etc/passwd exists and is not a pid file"),
    ("--pid-file /no/such/file", 73, "/no/such/file"),
    ("--log-file /no/such/file", 73, "/no/such/file"),
  ])
  func badOption(_ options: String, status: Int32, words: String) async throws {
    let name = RunningDaemon.uniqueName()
    let selector = options.contains("--name") || options.contains("--path") ? "" : "--name \(name)"
    for detach in ["", "--detach"] {
      let run = try await shell("$virt_walkerd serve \(selector) \(detach) \(options)")
      #expect(run.status == .exited(status))
      #expect(run.errors.contains(words), "\(run.errors)")
      #expect(run.output.isEmpty)
    }
    try await expectNothingLeft(of: "/dev/\(name)")
  }

  @Test(arguments: [
    ("explian 3", "no command 'explian'; did you mean explain?"),
    ("stpo --name x", "no command 'stpo'; did you mean stop?"),
    ("exp 3", "no command 'exp'; did you mean explain?"),
    ("Serve", "no command 'Serve'; did you mean serve?"),
    ("help explian", "no command 'explian'; did you mean explain?"),
    ("frobnicate", "no command 'frobnicate': virt-walkerd --help lists the commands"),
    ("''", "no command '': virt-walkerd --help lists the commands"),
  ])
  func unknownCommand(_ arguments: String, words: String) async throws {
    let run = try await shell("$virt_walkerd \(arguments)")
    #expect(run.status == .exited(64))
    #expect(run.errors == "virt-walkerd: \(words)\n")
    #expect(run.output.isEmpty)
  }

  @Test func everyCommandIsKnown() async throws {
    let run = try await shell(
      """
      for command in $($virt_walkerd --help | sed -n '/^SUBCOMMANDS/,/^$/s/^  \\([a-z]*\\) .*/\\1/p') help; do
          $virt_walkerd $command --help | grep -q "^USAGE: virt-walkerd " && $virt_walkerd help $command && echo "$command is known"
      done
      """)
    #expect(run.errors.isEmpty, "\(run.errors)")
    for command in ["serve", "status", "stop", "watch", "replay", "explain", "help"] {
      #expect(run.output.contains("\(command) is known\n"))
    }
  }

  @Test func withoutRootTheErrorSaysWhatIsPossible() async throws {
    let name = RunningDaemon.uniqueName()
    let run = try await shell(
      """
      cp $virt_walkerd /tmp/\(name)
      setpriv --reuid=65534 --regid=65534 --clear-groups /tmp/\(name) serve --name \(name)
      status=$?; rm /tmp/\(name); exit $status
      """, environment: ["LD_LIBRARY_PATH": ""])
    #expect(run.status == .exited(77))
    #expect(run.errors.contains("run as root, or choose a node that you may make: --path FILE"))
    try await expectNothingLeft(of: "/dev/\(name)")
  }

  @Test func missingCUSEIsNamed() async throws {
    try #require(
      !FileManager.default.fileExists(atPath: "/dev/cuse"),
      "this test is for a machine without CUSE; the others are in scripts/vm/cuse-vm-guest")
    let name = RunningDaemon.uniqueName()
    let run = try await shell("$virt_walkerd serve --backend cuse --name \(name)")
    #expect(run.status == .exited(69))
    #expect(
      run.errors
        == "virt-walkerd: /dev/cuse is missing: modprobe cuse, or run with --backend fuse\n")
    try await expectNothingLeft(of: "/dev/\(name)")
  }

  /// A library that reports a version older than the daemon needs.
  @Test(arguments: ["cuse", "fuse", "auto"])
  func oldLibfuseIsRefused(backend: String) async throws {
    let name = RunningDaemon.uniqueName()
    let run = try await shell(
      """
      echo 'int fuse_version(void) { return 310; }' | cc -shared -fPIC -x c - -o /tmp/\(name).so
      LD_PRELOAD=/tmp/\(name).so $virt_walkerd serve --name \(name) --backend \(backend)
      status=$?; rm /tmp/\(name).so; exit $status
      """)
    #expect(run.status == .exited(69))
    #expect(run.errors.contains("is too old: 3.14 or later is needed: install a newer libfuse3"))
    try await expectNothingLeft(of: "/dev/\(name)")
  }

  @Test func helpNamesEveryOption() async throws {
    let help = try await shell("$virt_walkerd serve --help")
    for option in [
      "--name", "--path", "--backend", "--mode", "--owner", "--group", "--backing", "--cpu",
      "--granule", "--ipa", "--memory", "--log-level", "--log-file", "--detach", "--pid-file",
    ] {
      #expect(help.output.contains("  \(option) ") || help.output.contains("  \(option)\n"))
    }
    #expect(!help.output.contains("ready-descriptor"))
  }
}

extension String {
  /// The decimal number after the first `mark`; empty if there is none.
  fileprivate func firstNumber(after mark: String) -> Substring {
    guard let range = range(of: mark) else { return "" }
    return self[range.upperBound...].prefix { $0.isNumber }
  }
}

/// A listener in place of systemd: a datagram socket.
private final class NotificationListener {
  private let socket: FileDescriptor
  private let path: String

  init(_ path: String) throws {
    self.path = path
    socket = FileDescriptor(rawValue: Glibc.socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue), 0))
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
    let result = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(socket.rawValue, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    try #require(result == 0)
  }

  /// The next message, or an empty text if none comes in 10 s.
  func receive() throws -> String {
    var entry = pollfd(fd: socket.rawValue, events: Int16(POLLIN), revents: 0)
    guard poll(&entry, 1, 10_000) == 1 else { return "" }
    var bytes = [UInt8](repeating: 0, count: 1024)
    let count = try bytes.withUnsafeMutableBytes { try socket.read(into: $0) }
    return String(decoding: bytes.prefix(count), as: UTF8.self)
  }

  deinit {
    try? socket.close()
    unlink(path)
  }
}
