import DaemonSupport
import Foundation
import Subprocess
import Testing

/// Tests of the locks, records, processes, descriptors and files that another user, or an attacker in the server, can
/// change.
@Suite(.endingDaemons, .timeLimit(.minutes(15))) struct TrustTests {
  private let name = RunningDaemon.uniqueName()
  private var node: String { "/dev/\(name)" }
  private var record: String { "/run/virt-walkerd/dev%2F\(name)" }
  private var lock: String { "/run/virt-walkerd/lock/dev%2F\(name)" }
  private let asNobody = "setpriv --reuid=65534 --regid=65534 --clear-groups"

  /// The pid in a record counts only together with the facts that identify the process.
  ///
  /// Each argument is a change of the record, made by root, so that the record names a process that is not the daemon.
  /// The process is a `sleep` of this test, so that a wrong `stop` ends nothing else.
  @Test(
    arguments: [
      "s/^pid=.*/pid=$victim/",
      "s/^pid=.*/pid=$victim/; s/^start=.*/start=$start/",
      "s/^pid=.*/pid=-1/", "s/^pid=.*/pid=0/", "s/^pid=.*/pid=1/", "s/^pid=.*/pid=-$victim/",
      "s/^start=.*/start=1/", "s/^boot=.*/boot=0/", "s/^program=.*/program=1:1/",
      "/^start=/d", "s/^pid=.*/&0000000000000000000/",
    ])
  func stopSignalsNoOtherProcess(change: String) async throws {
    // The line has a pid namespace of its own, so that a wrong signal to -1 stays inside.
    let run = try await shell(
      """
      cat >/tmp/\(name) <<'END'
      $virt_walkerd serve --detach --name \(name) >/dev/null || exit 99
      sleep 1000 & victim=$!
      start=$(cut -d' ' -f22 /proc/$victim/stat)
      cp '\(record)' /tmp/\(name).record
      sed -i "\(change)" '\(record)'
      ! cmp -s '\(record)' /tmp/\(name).record || exit 98
      $virt_walkerd stop --name \(name) && echo stopped
      kill -0 $victim && echo the victim lives
      printf A >\(node) && head -c1 \(node) && echo the daemon lives
      cp /tmp/\(name).record '\(record)'
      $virt_walkerd stop --name \(name) || exit 97
      kill -0 $victim && kill $victim
      END
      unshare --pid --fork --mount-proc sh /tmp/\(name); status=$?
      rm -f /tmp/\(name) /tmp/\(name).record; exit $status
      """)
    #expect(run.succeeded, "\(run.status) \(run.errors)")
    #expect(run.output == "the victim lives\nAthe daemon lives\n", "\(run.errors)")
    try await expectNothingLeft(of: node)
  }

  /// A process in another pid namespace sees other pids, so `stop` sends no signal there.
  @Test func stopFromAnotherPIDNamespaceIsRefused() async throws {
    let daemon = try await RunningDaemon(name: name)
    let pid = try await daemon.pid
    let run = try await shell(
      """
      unshare --pid --fork --mount-proc sh -c '$virt_walkerd status; $virt_walkerd stop --name \(name)'
      """)
    #expect(run.status == .exited(69))
    #expect(run.output.contains("\(node): fuse, pid \(pid) of another pid namespace, "))
    #expect(
      run.errors
        == "virt-walkerd: \(node) is served by pid \(pid) of another pid namespace: stop it there\n"
    )
    try await daemon.stop()
  }

  /// Only root can open the file of the lock. So other users can neither take nor test the lock.
  @Test func othersCannotOpenTheLock() async throws {
    let daemon = try await RunningDaemon(name: name)
    let pid = try await daemon.pid
    let run = try await shell(
      """
      stat -c '%a %U' '\(lock)' /run/virt-walkerd/lock '\(record)' /run/virt-walkerd
      \(asNobody) sh -c 'cat "\(lock)" || echo refused; ls /run/virt-walkerd/lock || echo refused' 2>/dev/null
      # The server and the keeper have the file of the lock open, and no other file of the directory.
      for pid in \(pid) $(pgrep -P \(pid)); do
        find /proc/$pid/fd -lname '/run/virt-walkerd/*%2F*' -printf '%l\\n'
        # Flags 01 and 02 mean that the file is open for writing.
        for fd in $(find /proc/$pid/fd -lname '/run/virt-walkerd/*' -printf '%f\\n'); do
          grep '^flags:.*[12]$' /proc/$pid/fdinfo/$fd
        done
      done
      exec 3<'\(record)'; flock -s 3; flock -x 3
      $virt_walkerd stop --name \(name) && echo stopped
      """)
    #expect(
      run.output == """
        600 root
        700 root
        644 root
        755 root
        refused
        refused
        \(lock)
        \(lock)
        stopped

        """, "\(run.errors)")
    try await expectNothingLeft(of: node)
  }

  /// All users can find root's daemons, also if the first daemon was started with a strict umask. The test has a /run of its own, so
  /// that no other daemon makes the directory.
  @Test func umaskDoesNotHideTheDaemon() async throws {
    let program = "/tmp/\(name)"
    let run = try await shell(
      """
      cp $virt_walkerd \(program)
      cat >\(program).sh <<'END'
      mount -t tmpfs -o mode=755 none /run || exit 99
      (umask 077; $virt_walkerd serve --detach --log-level error --name \(name) >/dev/null) || exit 98
      stat -c '%a %n' /run/virt-walkerd /run/virt-walkerd/lock '\(record)'
      \(asNobody) \(program) status | grep -o '^\(node): fuse'
      $virt_walkerd stop --name \(name)
      END
      unshare --mount sh \(program).sh; status=$?
      rm \(program) \(program).sh; exit $status
      """, environment: ["LD_LIBRARY_PATH": ""])
    #expect(run.succeeded, "\(run.status) \(run.errors)")
    #expect(
      run.output == """
        755 /run/virt-walkerd
        700 /run/virt-walkerd/lock
        644 \(record)
        \(node): fuse

        """, "\(run.errors)")
    try await expectNothingLeft(of: node)
  }

  /// Another user has made the directory earlier, or the directory contains a file of another kind.
  @Test func directoryOfAnotherUserIsNotUsed() async throws {
    let program = "/tmp/\(name)"
    // A user id that no user has, with a directory in /tmp that belongs to this user alone.
    let user = 40_000 + Int.random(in: 0..<10_000)
    let directory = "/tmp/virt-walkerd-\(user)"
    let run = try await shell(
      """
      cp $virt_walkerd \(program)
      as_user() { setpriv --reuid=\(user) --regid=\(user) --clear-groups env -u XDG_RUNTIME_DIR timeout 300 \(program) "$@" 2>&1; echo $?; }
      all() { as_user status; as_user stop --path /tmp/\(name)-node; as_user serve --tree none --path /tmp/\(name)-node; }
      mkdir -m 700 \(directory); chown 65534 \(directory); all
      chown \(user) \(directory); chmod 770 \(directory); all
      chmod 700 \(directory); mkfifo -m 666 \(directory)/fifo; chown \(user) \(directory)/fifo
      as_user status | tail -n 1 | grep -x '[03]'
      rm -r \(directory); ln -s /run \(directory); as_user status
      rm \(directory) \(program)
      """, environment: ["LD_LIBRARY_PATH": ""])
    let advice = "remove it, or set XDG_RUNTIME_DIR to a directory of yours"
    let foreign = "virt-walkerd: \(directory) belongs to another user: \(advice)\n77\n"
    let open =
      "virt-walkerd: \(directory) is open to other users, so its content cannot be trusted: \(advice)\n77\n"
    let expected =
      String(repeating: foreign, count: 3) + String(repeating: open, count: 3)
    try #require(run.output.hasPrefix(expected), "\(run.output)")
    let rest = run.output.dropFirst(expected.count).split(separator: "\n")
    // Daemons of root may run, too.
    #expect(["0", "3"].contains(rest.first), "\(run.output)")
    #expect(rest[1].hasPrefix("virt-walkerd: cannot open the directory \(directory): "))
    #expect(rest.last == "73")
  }

  @Test func recordOfAnotherKindDoesNotHoldUpStatus() async throws {
    let run = try await shell(
      """
      mkdir -p /run/virt-walkerd; mkfifo '\(record)'; ln -s /dev/zero '\(record).link'
      timeout 300 $virt_walkerd status >/dev/null; echo $?
      rm '\(record)' '\(record).link'; rmdir /run/virt-walkerd 2>/dev/null
      true
      """)
    #expect(["0\n", "3\n"].contains(run.output), "\(run.output)\(run.errors)")
  }

  /// The name of a directory can contain any character. Such a name adds no field to the record, and no escape sequence
  /// reaches a terminal.
  @Test func namesForgeNoFields() async throws {
    let run = try await shell(
      """
      directory=$(printf '/tmp/\(name)\\npid=1\\nnode=x\\033[31m')
      mkdir "$directory" && cd "$directory" || exit 99
      $virt_walkerd serve --detach --tree none --path node
      $virt_walkerd status | grep '\(name)'
      printf A >node && head -c1 node
      $virt_walkerd stop --path node && echo stopped
      cd / && rmdir "$directory"
      """)
    let shown = "/tmp/\(name)\\x0apid=1\\x0anode=x\\x1b[31m/node"
    let lines = run.output.split(separator: "\n")
    try #require(lines.count == 3, "\(run.output)\(run.errors)")
    #expect(lines[0].hasPrefix("\(shown) is ready (fuse, pid "))
    #expect(lines[1].hasPrefix("\(shown): fuse, pid "))
    #expect(lines[2] == "Astopped")
  }

  /// Neither the server nor the keeper inherits descriptors of the caller.
  @Test func inheritedDescriptorsAreClosed() async throws {
    let list =
      "for pid in $pid $(pgrep -P $pid); do find /proc/$pid/fd -type l -printf '%f %l\\n'; done"
    func descriptors(_ redirections: String, _ options: String) async throws -> Set<Substring> {
      let run = try await shell(
        """
        (
        \(redirections)
        $virt_walkerd serve \(options) --name \(name) >/tmp/\(name) 2>&1 </etc/shadow &
        soon grep -q 'is ready' /tmp/\(name)
        )
        pid=$($virt_walkerd status | sed -n 's|^\(node): .*pid \\([0-9]*\\).*|\\1|p')
        printf A >\(node); \(list)
        $virt_walkerd stop --name \(name); rm /tmp/\(name)
        """)
      // The numbers of sockets and processes differ, so they are removed.
      return Set(
        run.output.split(separator: "\n").map { line in
          let words = line.split(separator: " ", maxSplits: 1)
          return words[1].prefix { $0 != "[" && $0 != "(" }
        }.filter { !$0.hasPrefix("/proc/") })
    }
    let usual: Set<Substring> = [
      "/dev/null", "/tmp/\(name)", "/dev/fuse", "/dev/cpu_dma_latency", "anon_inode:", "socket:",
      Substring(lock), "/run/virt-walkerd", "/run/virt-walkerd/lock", "/run", "/dev",
    ]
    let none = try await descriptors(":", "")
    #expect(none.isSubset(of: usual), "\(none.subtracting(usual))")
    for options in ["", "--detach"] {
      let many = try await descriptors(
        "exec 9</etc/shadow 8>/tmp/\(name).8 7<>/tmp/\(name).8 6</ ; rm /tmp/\(name).8", options)
      #expect(many.isSubset(of: usual), "\(many.subtracting(usual))")
    }
    let counts = try await shell(
      """
      count() { for pid in $pid $(pgrep -P $pid); do ls /proc/$pid/fd | wc -l; done; }
      start() { $virt_walkerd serve --detach --name \(name) >/dev/null; pid=$($virt_walkerd status | sed -n 's|^\(node): .*pid \\([0-9]*\\).*|\\1|p'); }
      start; count; $virt_walkerd stop --name \(name)
      exec 5</etc/shadow 6</etc/shadow 7</etc/shadow 8</etc/shadow 9</etc/shadow
      start; count; $virt_walkerd stop --name \(name)
      """)
    let numbers = counts.output.split(separator: "\n")
    try #require(numbers.count == 4, "\(counts.output)\(counts.errors)")
    #expect(Array(numbers[..<2]) == Array(numbers[2...]))
    try await expectNothingLeft(of: node)
  }

  /// A lock of the caller ends with the caller: the daemon does not inherit it.
  @Test func callersLockIsNotKept() async throws {
    let run = try await shell(
      """
      ( flock -n 9 && $virt_walkerd serve --detach --name \(name) >/dev/null ) 9>/tmp/\(name)
      flock -n /tmp/\(name) echo free
      rm /tmp/\(name); $virt_walkerd stop --name \(name)
      """)
    #expect(run.output == "free\n", "\(run.errors)")
    try await expectNothingLeft(of: node)
  }

  // MARK: - Files that are named on the command line

  @Test(arguments: ["--pid-file", "--log-file"])
  func filesOfOtherKindsAreRefused(option: String) async throws {
    let file = "/tmp/\(name)"
    let run = try await shell(
      """
      try() { timeout 300 $virt_walkerd serve --log-level error --name \(name) \(option) \(file) 2>&1; echo $?; rm -r \(file); }
      mkfifo \(file); try
      mkdir \(file); try
      mknod \(file) c 1 3; try
      ln -s /tmp/\(name).target \(file); chown -h 65534 \(file); try; ls /tmp/\(name).target
      """)
    let lines = run.output.split(separator: "\n")
    try #require(lines.count == 8, "\(run.output)\(run.errors)")
    for index in stride(from: 0, to: 8, by: 2) {
      #expect(lines[index].contains(file) && lines[index].contains("choose another \(option)"))
      #expect(lines[index + 1] == "73")
    }
    try await expectNothingLeft(of: node)
  }

  /// The owner of the directory puts another file at the path of the pid file. The other file stays, and the daemon
  /// does not wait for it.
  @Test(arguments: ["mkfifo", "mkdir", "echo 1 >", "ln -s /etc/passwd", "cp copy"])
  func exchangedPIDFileStays(exchange: String) async throws {
    let directory = "/tmp/\(name)"
    let run = try await shell(
      """
      mkdir \(directory) && cd \(directory) && chown 65534 . || exit 99
      for how in 'stop --name \(name)' kill; do
        $virt_walkerd serve --detach --name \(name) --pid-file \(directory)/pid >/dev/null || exit 98
        pid=$(cat pid); cp pid copy; mv pid old; \(exchange) pid; before=$(stat -c %i pid)
        case $how in kill) kill_served $pid ;; *) timeout 300 $virt_walkerd $how ;; esac || exit 97
        [ "$before" = "$(stat -c %i pid)" ] && echo stays
        rm -r pid old
      done
      cd / && rm -r \(directory)
      """)
    #expect(run.output == "stays\nstays\n", "\(run.status) \(run.errors)")
    try await expectNothingLeft(of: node)
  }

  @Test func logFollowsOwnLinksOnly() async throws {
    let directory = "/tmp/\(name)"
    let run = try await shell(
      """
      mkdir \(directory) \(directory)/target && cd \(directory) || exit 99
      ln -s target own; ln -s target others; chown -h 65534 others
      ln -s target/own.log own.log; ln -s target/others.log others.log; chown -h 65534 others.log
      for file in own/log own.log others/log others.log; do
        $virt_walkerd serve --detach --name \(name) --log-file \(directory)/$file >/dev/null 2>errors
        echo $?; cat errors; $virt_walkerd stop --name \(name) 2>/dev/null
      done
      ls target; cd /; rm -r \(directory)
      """)
    let refused =
      "Too many levels of symbolic links: a symbolic link on the way belongs to another user: choose another --log-file\n"
    #expect(
      run.output == """
        0
        0
        73
        virt-walkerd: cannot write the log \(directory)/others/log: \(refused)73
        virt-walkerd: cannot write the log \(directory)/others.log: \(refused)log
        own.log

        """, "\(run.errors)")
    try await expectNothingLeft(of: node)
  }

  /// With `ulimit -f`, a log that cannot grow does not end the daemon. A server without a log cannot make any file
  /// grow.
  @Test func limitOfFileSizesDoesNotEndTheDaemon() async throws {
    let run = try await shell(
      """
      ulimit -f 4
      $virt_walkerd serve --detach --log-level info --log-file /tmp/\(name) --name \(name) >/dev/null || exit 99
      dd if=/dev/zero of=\(node) bs=1 count=300 2>/dev/null && head -c300 \(node) | wc -c
      stat -c %s /tmp/\(name); rm /tmp/\(name)
      $virt_walkerd stop --name \(name) && echo stopped
      """)
    let lines = run.output.split(separator: "\n")
    try #require(lines.count == 3, "\(run.status) \(run.output)\(run.errors)")
    #expect(lines[0] == "300" && lines[2] == "stopped")
    #expect(Int(lines[1])! <= 4096)

    let daemon = try await RunningDaemon(name: name)
    let pid = try await daemon.pid
    let limits = try await shell("grep 'Max file size' /proc/\(pid)/limits | tr -s ' '")
    #expect(limits.output == "Max file size 0 0 bytes \n")
    try await daemon.stop()
  }

  /// The owner of the node's directory replaces it by another directory with a mount of the same name.
  @Test(arguments: ["stop --path \"$moved\"/node", "kill"])
  func exchangedDirectoryKeepsItsMounts(end: String) async throws {
    let directory = "/tmp/\(name)"
    let run = try await shell(
      """
      mkdir -p \(directory)/a \(directory)/b && chown -R 65534 \(directory) && cd \(directory) || exit 99
      $virt_walkerd serve --detach --tree none --path \(directory)/a/node --pid-file \(directory).pid >/dev/null || exit 98
      # Another mount, made by root, at the path that the node will seem to have.
      touch b/node; mount --bind /etc/hostname b/node
      mv a moved; mv b a; moved=\(directory)/moved
      pid=$(cat \(directory).pid)
      case '\(end)' in kill) kill_served $pid ;; *) kill $pid; soon test ! -e /proc/$pid/exe ;; esac
      cmp a/node /etc/hostname && echo the mount stays
      ls -A moved; grep -c '\(name)' /proc/self/mounts
      umount a/node; cd /; rm -r \(directory)
      """)
    #expect(run.output == "the mount stays\n1\n", "\(run.status) \(run.output)\(run.errors)")
  }

  /// Root has unmounted the node and has mounted another file there.
  @Test func otherMountAtTheNodeStays() async throws {
    let file = "/tmp/\(name)"
    let run = try await shell(
      """
      $virt_walkerd serve --detach --tree none --path \(file) --pid-file \(file).pid >/dev/null || exit 98
      kill -STOP $(cat \(file).pid); umount -l \(file); mount --bind /etc/hostname \(file)
      kill_served $(cat \(file).pid)
      cmp \(file) /etc/hostname && echo the mount stays
      umount \(file); cat \(file); rm \(file)
      """)
    #expect(
      run.output == "the mount stays\nmount point of virt-walkerd, which removes it when it ends\n",
      "\(run.status) \(run.output)\(run.errors)")
  }

  /// The symbolic link to the node's directory belongs to another user.
  @Test func linkOfAnotherUserToTheNodesDirectoryIsNotFollowed() async throws {
    let directory = "/tmp/\(name)"
    let run = try await shell(
      """
      mkdir -p \(directory)/target; ln -s target \(directory)/link; chown -h 65534 \(directory)/link
      $virt_walkerd serve --path \(directory)/link/node; echo $?; ls -A \(directory)/target; rm -r \(directory)
      """)
    #expect(run.output == "73\n")
    #expect(run.errors.contains("a symbolic link on the way belongs to another user"))
  }
}
