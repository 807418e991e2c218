import DaemonSupport
import Foundation
import Glibc
import Subprocess
import Synchronization
import SystemPackage
import Testing

/// Tests of the inspection tree of a running daemon.
@Suite(.endingDaemons, .timeLimit(.minutes(15))) struct TreeTests {
  private static let files = [
    "control", "guest/dmesg", "guest/dmesg_pipe", "host/dmesg", "host/dmesg_pipe", "ipa_range",
    "metrics", "pte", "reset", "stage2_levels", "stage2_page_tables", "stats", "trace",
    "trace_pipe", "walk", "walk.svg",
  ]

  /// Runs `body` in the tree of a new daemon. `$node` is the node.
  private func inTree(
    _ options: String = "", _ body: String
  ) async throws -> Outcome {
    let daemon = try await RunningDaemon(options)
    let outcome = try await shell(
      "cd \(daemon.tree) && { \(body)\n}", environment: ["node": daemon.node])
    try await daemon.stop()
    return outcome
  }

  // MARK: - As in /proc

  @Test func namesSizesAndModes() async throws {
    let run = try await inTree(
      "",
      """
      printf A >$node; echo 'host fork' >control; find . -type f | cut -c3- | sort
      for file in $(find . -type f ! -name '*_pipe' ! -name reset); do
          [ "$(stat -c %s $file)" -eq "$(dd if=$file status=none | wc -c)" ] || stat -c '%n %s' $file
          [ "$(stat -c %b $file)" -gt 0 ] || echo "$file has no blocks"
      done
      stat -c %s reset; stat -c '%a %U' . guest walk control reset
      """)
    let names = Self.files.map { "\($0)\n" }.joined()
    #expect(run.output == "\(names)0\n700 root\n700 root\n400 root\n600 root\n200 root\n")
  }

  /// Programs read in different ways: coreutils with read(2), busybox and uutils with splice(2) and sendfile(2), tar by
  /// the size, and dmesg -F by mmap(2).
  @Test func everyProgramReadsAllOfAFile() async throws {
    let client = try await Probe.treeClient.path()
    let run = try await inTree(
      "",
      """
      client=\(client); for i in $(seq 400); do printf A >$node; done; echo 'host fork' >control
      for file in $(find . -type f ! -name '*_pipe' ! -name reset); do
          dd if=$file of=/tmp/$$.dd status=none
          for way in 'cat' "$client splice" "$client sendfile" 'tail -n +1' 'tar -cf - --to-stdout'; do
              case $way in tar*) tar -cf - $file | tar -xOf - ;; *) $way $file ;; esac >/tmp/$$.way
              cmp /tmp/$$.dd /tmp/$$.way || echo "$way $file"
          done
          [ "$(grep -c '' $file)" -eq "$(grep -c '' /tmp/$$.dd)" ] || echo "grep $file"
          cp $file /tmp/$$.way && cmp /tmp/$$.dd /tmp/$$.way || echo "cp $file"
      done
      for log in guest host; do
          $client map $log/dmesg | cmp - $log/dmesg
          dmesg -F $log/dmesg >/tmp/$$.dd; cp $log/dmesg /tmp/$$.log; dmesg -F /tmp/$$.log | cmp - /tmp/$$.dd
      done
      rm /tmp/$$.*
      """)
    #expect(run.output == "" && run.errors == "", "\(run.output)\(run.errors)")
  }

  /// The mode of the tree decides which users can enter it.
  @Test func treeMode() async throws {
    let nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups"
    let closed = try await inTree("", "\(nobody) cat $PWD/walk")
    #expect(!closed.succeeded && closed.errors.contains("Permission denied"))
    let open = try await inTree(
      "--tree-mode 0755 --group 12",
      "stat -c '%a %g' . guest pte control reset; \(nobody) cat pte && ! \(nobody) sh -c 'echo host fork >control' && ! \(nobody) cat reset"
    )
    #expect(open.succeeded, "\(open.errors)")
    #expect(
      open.output.hasPrefix("755 12\n755 12\n444 12\n644 12\n200 12\n"), "\(open.output)")
  }

  @Test func filesReadAsOthersDo() async throws {
    let run = try await inTree(
      "",
      """
      cat walk >$TMP.cat; cmp walk $TMP.cat && dd if=walk bs=7 status=none | cmp - $TMP.cat &&
      head -n 1 walk && grep -c . walk && wc -l <walk && tail -n 1 ipa_range && cp walk $TMP.copy &&
      cmp walk $TMP.copy && sed -n '$p' stage2_levels && tac ipa_range && sort -u ipa_range
      rm -f $TMP.cat $TMP.copy
      """.replacing("$TMP", with: "/tmp/\(RunningDaemon.uniqueName())"))
    #expect(run.succeeded, "\(run.errors)")
    #expect(
      run.output
        == "walk of 0x40000000: 4K granule, 40-bit IPA, start level 1\n19\n22\n40\n3\n40\n40\n",
      "\(run.output)")
  }

  @Test func nothingCanBeMadeOrTakenAway() async throws {
    let run = try await inTree(
      "",
      """
      for command in 'touch new' 'rm walk' 'mkdir new' 'mv walk new' 'ln walk new' 'ln -s walk new' \\
          'chmod 777 walk' 'chown 1 walk' 'rmdir guest' 'sh -c "echo >walk"' 'sh -c "echo >pte"' \\
          'sh -c "echo >trace_pipe"' 'cat reset' 'truncate -s 5 stats'; do
          eval "$command" 2>/dev/null && echo "$command"
      done
      find . -type f | wc -l
      """)
    #expect(run.output == "\(Self.files.count)\n")
  }

  /// All parts that one reader gets belong to the same moment, however small they are. A read from the start shows the
  /// present.
  @Test func aReadIsASnapshot() async throws {
    let daemon = try await RunningDaemon()
    let file = open("\(daemon.tree)/pte", O_RDONLY)
    let node = open(daemon.node, O_RDWR)
    func hide(_ byte: UInt8) {
      withUnsafeBytes(of: byte) { _ = Glibc.write(node, $0.baseAddress, 1) }
    }
    func read(from start: off_t) -> String {
      var text: [UInt8] = []
      var byte: UInt8 = 0
      lseek(file, start, SEEK_SET)
      while Glibc.read(file, &byte, 1) == 1 {
        text.append(byte)
        hide(0xff)
      }
      return String(decoding: text, as: UTF8.self)
    }
    hide(0)
    let first = read(from: 0)
    #expect(first.hasPrefix("0000") && first.utf8.count == 17)
    #expect(read(from: 8) == String(first.dropFirst(8)))
    #expect(read(from: 0).hasPrefix("07f8"))
    close(file)
    close(node)
    try await daemon.stop()
  }

  // MARK: - The content of the files

  @Test(arguments: ["huge", "anonymous"])
  func filesFollowTheDevice(backing: String) async throws {
    let run = try await inTree(
      "--backing \(backing)",
      """
      printf A >$node; head -c1 $node >/dev/null; cat pte; grep -o "hidden byte .*" walk
      head -n 2 stats; cut -d' ' -f2- guest/dmesg | grep -o 'write.*\\|read.*'; cat host/dmesg | wc -l
      grep -c virt_walker_hide trace; grep -o 'hidden byte 0x41 .A.<' walk.svg
      grep hidden_byte.node metrics | cut -d' ' -f2; cat stage2_levels ipa_range
      awk '/000040000000-/ { print $3 }' stage2_page_tables
      """)
    let lines = run.output.split(separator: "\n")
    // The byte 0x41 is in bits 58 to 51, so the entry begins with 0x0208.
    #expect(lines[0].hasPrefix("0208") && lines[0].count == 16)
    #expect(
      lines.dropFirst() == [
        "hidden byte 0x41 'A'", "reads 1", "writes 1", "write length: 1 bytes",
        "read length: 1 bytes", "2", "1", "hidden byte 0x41 'A'<", "65", "3", "40",
        backing == "huge" ? "2" : "3",
      ], "\(run.output)")
  }

  /// Renders the drawing with a program of another project, which scripts/test installs.
  @Test func drawingIsRendered() async throws {
    let run = try await inTree(
      "",
      "printf '<' >$node; rsvg-convert walk.svg | od -An -tx1 -N8; rsvg-convert walk.svg | wc -c")
    #expect(run.succeeded, "\(run.errors): apt install librsvg2-bin")
    let lines = run.output.split(separator: "\n")
    #expect(lines.first == " 89 50 4e 47 0d 0a 1a 0a")
    // A blank picture of this size has about two thousand bytes.
    #expect(Int(lines[1].filter(\.isNumber)) ?? 0 > 10_000)
  }

  @Test func controlAndReset() async throws {
    let run = try await inTree(
      "--backing anonymous",
      """
      printf A >$node
      echo 'host madvise dontneed 0x40000000 0x1000' >control && sed -n 2p control
      head -c1 $node | od -An -tx1; grep bytes_lost stats
      before=$(cat stats trace); echo 'host madvise dontmind 0x40000000 0x1000' >control; echo $?
      [ "$before" = "$(cat stats trace)" ] && cut -c1-17 control
      printf 'guest ldr w0,[0x40000000]\\nhost fork\\n' >control; grep -c '^  result 0' control
      printf B >$node; echo 2 >reset; echo $?; head -c1 $node; echo 1 >reset
      head -c1 $node | od -An -tx1
      """)
    #expect(
      run.output
        == "  result 0\n 00\nbytes_lost 1\n1\n1:14: expected do\n1\n1\nB 00\n",
      "\(run.output)")
    #expect(run.errors.contains("Invalid argument") || run.errors.contains("I/O error"))
  }

  /// Writes 4000 lines to control, through pipes and buffers of any size.
  @Test func controlTakesWholeFiles() async throws {
    let run = try await inTree(
      "",
      """
      seq 4000 | sed 's/.*/host read 0x40000000/' >/tmp/$$.txt
      cat /tmp/$$.txt >control && grep ^steps stats && cp /tmp/$$.txt control && grep ^steps stats
      sed p /tmp/$$.txt >control; grep ^steps stats; dd if=/tmp/$$.txt of=control bs=4k status=none
      grep ^steps stats; grep -c ' value ' control; rm /tmp/$$.txt
      """)
    let lines = run.output.split(separator: "\n")
    #expect(
      lines.prefix(4) == ["steps 4000", "steps 8000", "steps 16000", "steps 20000"], "\(run.output)"
    )
  }

  // MARK: - Pipes

  @Test func pipesFollow() async throws {
    let daemon = try await RunningDaemon()
    let run = try await shell(
      """
      cd \(daemon.tree); out=/tmp/\(RunningDaemon.uniqueName())
      printf A >\(daemon.node)
      cat trace_pipe >$out.cat & cat=$!; tail -n 1 -f guest/dmesg_pipe >$out.tail & tail=$!
      cat host/dmesg_pipe >$out.host & host=$!
      has() { [ "$(grep -c "$2" $out.$1)" -ge $3 ]; }; lines() { soon has "$@"; }
      lines cat virt_walker_hide 1; lines tail write 1; lines host MMIO 1
      printf B >\(daemon.node); lines cat virt_walker_hide 2; lines tail write 2; lines host MMIO 2
      head -n 2 trace_pipe | wc -l
      # Two readers end, one by SIGTERM and one by SIGKILL. The others continue.
      kill $cat; wait $cat; kill -9 $host; wait $host
      printf C >\(daemon.node); lines tail write 3; kill $tail; wait $tail
      grep -c virt_walker_hide $out.cat; rm $out.*
      """)
    #expect(run.output == "2\n2\n", "\(run.output)\(run.errors)")
    // A reader that waits at the end gets the end of the file when the daemon ends.
    let end = try await shell(
      """
      out=/tmp/\(RunningDaemon.uniqueName())
      cat \(daemon.tree)/guest/dmesg_pipe >$out & cat=$!; soon test -s $out
      $virt_walkerd stop \(daemon.selector); wait $cat; status=$?; cat $out; rm $out; exit $status
      """)
    #expect(end.succeeded && end.output.hasSuffix("write length: 1 bytes\n"))
    try await expectNothingLeft(of: daemon.node)
  }

  /// Programs that use splice continue with read(2), and do not take a short answer for the end.
  @Test(arguments: ["splice", "sendfile"], ["trace_pipe", "guest/dmesg_pipe", "host/dmesg_pipe"])
  func pipesFollowForProgramsThatSplice(way: String, pipe: String) async throws {
    let client = try await Probe.treeClient.path()
    let run = try await inTree(
      "",
      """
      out=/tmp/\(RunningDaemon.uniqueName()); \(client) \(way) \(pipe) >$out & client=$!
      has() { kill -0 $client || exit; [ "$(grep -c 'virt_walker_hide\\|write\\|MMIO' $out)" -ge $1 ]; }
      for count in 1 2 3; do printf A >$node; soon has $count; done
      kill $client; echo followed; rm $out
      """)
    #expect(run.output == "followed\n", "\(run.errors)")
  }

  @Test func pipesWithoutWaiting() async throws {
    let daemon = try await RunningDaemon()
    let pipe = open("\(daemon.tree)/guest/dmesg_pipe", O_RDONLY | O_NONBLOCK)
    var text = [UInt8](repeating: 0, count: 100)
    #expect(read(pipe, &text, 100) == -1 && errno == EAGAIN)
    var entry = pollfd(fd: pipe, events: Int16(POLLIN), revents: 0)
    #expect(poll(&entry, 1, 0) == 0)
    _ = try await shell("printf A >\(daemon.node)")
    #expect(poll(&entry, 1, 10_000) == 1 && entry.revents == Int16(POLLIN))
    // A read of one byte gives the first byte of a line.
    #expect(read(pipe, &text, 1) == 1 && text[0] == UInt8(ascii: "["))
    #expect(read(pipe, &text, 100) > 20)
    #expect(read(pipe, &text, 100) == -1 && errno == EAGAIN)
    close(pipe)
    try await daemon.stop()
  }

  /// Sixteen readers read the trace, and one of them is stopped. The device answers each of 100,000 requests with the
  /// right byte. Each reader gets each event, or the number of events that it has missed.
  @Test func readersDoNotDelayTheDevice() async throws {
    let daemon = try await RunningDaemon()
    let path = "\(daemon.tree)/trace_pipe"
    let slow = "/tmp/\(RunningDaemon.uniqueName())"
    // The reader is stopped after its first line. In a session of its own, it remains stopped when the shell ends: the
    // kernel sends SIGCONT to the stopped processes of a group that becomes orphaned.
    let start = try await shell(
      "printf A >\(daemon.node); setsid cat \(path) >\(slow) & soon test -s \(slow); kill -STOP $!; echo $!"
    )
    let readers = (0..<15).map { _ in TraceReader(path) }
    let stopped = try #require(pid_t(start.output.dropLast()))

    let node = open(daemon.node, O_RDWR)
    var wrong = 0
    for number in 0..<50_000 {
      var byte = UInt8(truncatingIfNeeded: number &* 7)
      if write(node, &byte, 1) != 1 { wrong += 1 }
      var seen: UInt8 = 0
      if read(node, &seen, 1) != 1 || seen != byte { wrong += 1 }
    }
    close(node)
    #expect(wrong == 0)

    let head = try await shell("grep -o 'written: .*/[0-9]*' \(daemon.tree)/trace | cut -d/ -f2")
    let written = try #require(Int(head.output.dropLast()))
    // An access makes at least an exit, a fault, two visits, the hide or the seek, and an entry.
    #expect(written >= 600_000)
    for reader in readers { #expect(reader.finish() == written) }
    let late = try await shell(
      """
      kill -CONT \(stopped); last=$(tail -n 1 \(daemon.tree)/trace)
      at_end() { [ "$(tail -n 1 \(slow))" = "$last" ]; }; soon at_end
      kill \(stopped); awk '/^CPU:0 .LOST/ { lost += $3; next } { n++ } END { print n + lost, (lost > 0) }' \(slow)
      rm \(slow)
      """)
    #expect(late.output == "\(written) 1\n", "\(late.errors)")
    try await daemon.stop()
  }

  /// Reads a trace_pipe on a thread of its own, and counts the events.
  private final class TraceReader: Sendable {
    private let isDone = Atomic(false)
    private let count = Atomic(0)
    private let hasEnded = DispatchSemaphore(value: 0)

    init(_ path: String) {
      Thread.detachNewThread { [self] in
        let pipe = open(path, O_RDONLY | O_NONBLOCK)
        defer { hasEnded.signal() }
        // The text stays bytes: a debug build splits a string more slowly than the daemon makes the text.
        var buffer = [UInt8](repeating: 0, count: 65536)
        var kept = 0
        while true {
          let isLast = isDone.load(ordering: .acquiring)
          let length = buffer.withUnsafeMutableBytes {
            read(pipe, $0.baseAddress! + kept, $0.count - kept)
          }
          if length > 0 {
            let end = kept + length
            let (events, rest) = buffer.withUnsafeBytes {
              Self.events(in: UnsafeRawBufferPointer(rebasing: $0[..<end]))
            }
            count.add(events, ordering: .relaxed)
            kept = end - rest
            buffer.replaceSubrange(..<kept, with: Array(buffer[rest..<end]))
          } else if errno == EAGAIN, !isLast {
            var entry = pollfd(fd: pipe, events: Int16(POLLIN), revents: 0)
            poll(&entry, 1, 100)
          } else {
            close(pipe)
            return
          }
        }
      }
    }

    /// The number of events in the whole lines of `text`, and the place where the rest begins.
    private static func events(in text: UnsafeRawBufferPointer) -> (Int, rest: Int) {
      let loss = "CPU:0 [LOST "
      var events = 0
      var start = 0
      while start < text.count, let line = text.baseAddress?.advanced(by: start),
        let newline = memchr(line, 0x0a, text.count - start)
      {
        let length = line.distance(to: newline)
        if length > loss.utf8.count, memcmp(line, loss, loss.utf8.count) == 0 {
          let bytes = UnsafeRawBufferPointer(start: line, count: length)
          let words = String(decoding: bytes, as: UTF8.self).split(separator: " ")
          events += Int(words[2]) ?? -1_000_000
        } else {
          events += 1
        }
        start += length + 1
      }
      return (events, start)
    }

    /// Reads the rest, and returns the number of events, including the events that were reported as lost.
    func finish() -> Int {
      isDone.store(true, ordering: .releasing)
      hasEnded.wait()
      return count.load(ordering: .relaxed)
    }
  }

  /// All clients together have a limit. A request beyond the limit gets an error, and a close makes room.
  @Test func limits() async throws {
    var files = rlimit()
    getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &files)
    files.rlim_cur = files.rlim_max
    setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &files)

    let daemon = try await RunningDaemon()
    var opened: [Int32] = []
    var refusals = 0
    while opened.count < 5000, refusals < 1000 {
      let file = open("\(daemon.tree)/pte", O_RDONLY)
      if file >= 0 {
        opened.append(file)
        continue
      }
      #expect(errno == ENFILE)
      guard opened.count < 4096 else { break }
      // Other tests run `virt-walkerd status`, which briefly opens a file of each tree.
      refusals += 1
      usleep(10_000)
    }
    #expect(opened.count == 4096)
    for file in opened { close(file) }

    // A full trace has more than a megabyte, and each of its readers has a copy.
    let fill = try await shell("for i in $(seq 3000); do printf A >\(daemon.node); done")
    #expect(fill.succeeded, "\(fill.errors)")
    opened = []
    var byte: UInt8 = 0
    while opened.count < 100 {
      let file = open("\(daemon.tree)/trace", O_RDONLY)
      opened.append(file)
      guard read(file, &byte, 1) == 1 else { break }
    }
    #expect(errno == ENOMEM)
    #expect((20..<100).contains(opened.count), "\(opened.count)")
    close(opened.removeFirst())
    // The kernel reports a close to the server a little later.
    var isRead = false
    for _ in 0..<1000 where !isRead {
      isRead = read(opened[opened.count - 1], &byte, 1) == 1
      if !isRead { usleep(10_000) }
    }
    #expect(isRead)
    for file in opened { close(file) }

    // One waiting read too many gets an error at once. The other reads get the end of the file when the daemon ends.
    let pipe = open("\(daemon.tree)/guest/dmesg_pipe", O_RDONLY | O_NONBLOCK)
    var lines = [UInt8](repeating: 0, count: 1 << 16)
    while read(pipe, &lines, lines.count) > 0 {}
    #expect(errno == EAGAIN)
    #expect(fcntl(pipe, F_SETFL, O_RDONLY) == 0)
    let failures = Atomic(0)
    let error = Atomic<Int32>(0)
    let ended = DispatchGroup()
    for _ in 0...1024 {
      ended.enter()
      let thread = Thread {
        var byte: UInt8 = 0
        let count = pread(pipe, &byte, 1, 0)
        if count != 0 {
          error.store(errno, ordering: .relaxed)
          failures.add(1, ordering: .releasing)
        }
        ended.leave()
      }
      thread.stackSize = 1 << 16
      thread.start()
    }
    while failures.load(ordering: .acquiring) == 0 {
      try await Task.sleep(for: .milliseconds(10))
    }
    try await daemon.stop()
    ended.wait()
    #expect(failures.load(ordering: .acquiring) == 1)
    #expect(error.load(ordering: .relaxed) == ENOMEM)
    close(pipe)
  }

  /// The open files of one user do not prevent other users from opening files. Root and the owner always have room.
  @Test func eachUserHasABound() async throws {
    let client = try await Probe.treeClient.path()
    let daemon = try await RunningDaemon("--tree-mode 0755 --owner 1000")
    let run = try await shell(
      """
      cd \(daemon.tree); for i in $(seq 3000); do printf A >\(daemon.node); done
      as() { user=$1; shift; setpriv --reuid $user --regid $user --clear-groups "$@"; }
      # Each client holds its files until the other end of its input is closed.
      hold() { setpriv --reuid $1 --regid $1 --clear-groups \(client) $2 5000 $3 <$fifo >$fifo.$1 9>&- & soon test -s $fifo.$1; cat $fifo.$1; }
      fifo=/tmp/\(RunningDaemon.uniqueName()); mkfifo $fifo; exec 9<>$fifo
      for user in 1001 1002 1003 1004 1005 1006 1007; do hold $user hold pte; done
      as 1000 cat pte | wc -l; as 1000 sh -c 'echo host fork >control'; cat control | head -n 1
      # The server may not have been told yet of the closes by the two commands before.
      hold 1000 hold pte | sed 's/^51[01] /512 /'; echo 'host end-fork' >control; cat control | head -n 1
      echo 1 >reset; grep resets stats; exec 9>&-; wait; rm $fifo*
      # The kernel reports a close to the server a little later.
      has_room() { [ "$(as 1001 \(client) hold 512 pte </dev/null)" = '512 all' ]; }; soon has_room
      mkfifo $fifo; exec 9<>$fifo
      for user in 1008 1009; do hold $user read trace; done
      cat trace | tail -n 1 | grep -c virt-walkerd; exec 9>&-; wait; rm $fifo*
      """)
    let lines = run.output.split(separator: "\n")
    #expect(
      lines.prefix(12) == [
        "512 ENFILE", "512 ENFILE", "512 ENFILE", "512 ENFILE", "512 ENFILE", "512 ENFILE",
        "0 ENFILE",
        "1", "host fork", "512 ENFILE", "host end-fork", "resets 1",
      ], "\(run.output)\(run.errors)")
    let readers = lines.dropFirst(12).prefix(2).map { $0.split(separator: " ") }
    for reader in readers {
      #expect(
        reader.count == 2 && reader[1] == "ENOMEM" && (3...20).contains(Int(reader[0]) ?? 0),
        "\(run.output)\(run.errors)")
    }
    #expect(lines.last == "1")
    try await daemon.stop()
  }

  // MARK: - Long writes

  /// The size of the memory in which a scan of KSM takes long enough for other requests, and much less than the CPU time that a write to
  /// control may take. ThreadSanitizer makes a scan ten times as long.
  private static let longStepSize = "0x2000000"

  /// If the writer of control is killed, its write ends. The device and the tree answer during the write.
  @Test func theWriterIsKilled() async throws {
    let run = try await inTree(
      "--backing anonymous",
      """
      printf 'host madvise %s 0x40000000 \(Self.longStepSize)\n' populate-write mergeable >control
      yes 'host ksm' | head -c 9000 | dd of=control bs=9000 iflag=fullblock status=none & writer=$!
      soon grep -q '^steps [3-9]' stats
      printf A >$node && head -c1 $node && head -n 1 walk && dd if=guest/dmesg status=none | wc -l
      kill -KILL $writer; wait $writer; echo $?
      soon grep -q 'ended early' control
      grep -c 'its writer was interrupted. Steps done: [0-9]* of 1000' control
      echo 'host fork' >control; head -n 1 control
      """)
    #expect(
      run.output
        == "Awalk of 0x40000000: 4K granule, 40-bit IPA, start level 1\n2\n137\n1\nhost fork\n",
      "\(run.output)\(run.errors)")
  }

  /// Neither a write to control nor one of its steps delays the end of the daemon.
  @Test func stopEndsAWrite() async throws {
    let daemon = try await RunningDaemon("--backing anonymous")
    let run = try await shell(
      """
      cd \(daemon.tree); printf 'host madvise %s 0x40000000 \(Self.longStepSize)\n' populate-write mergeable >control
      yes 'host ksm' | head -c 9000 | dd of=control bs=9000 iflag=fullblock status=none 2>/dev/null & writer=$!
      soon grep -q '^steps [3-9]' stats
      cd /; $virt_walkerd stop \(daemon.selector); echo $?; wait $writer; echo $?
      """)
    #expect(run.output == "0\n1\n", "\(run.errors)")
    try await expectNothingLeft(of: daemon.node)
  }

  /// The other nodes of the daemon answer even during one step.
  @Test func otherNodesAreServedDuringAStep() async throws {
    let name = RunningDaemon.uniqueName()
    let run = try await shell(
      """
      ready=$($virt_walkerd serve --detach --name \(name) --count 2 --backing anonymous 2>/dev/null)
      echo "$ready" | wc -l; pid=$(echo "$ready" | sed -n '1s/.*pid \\([0-9]*\\).*/\\1/p')
      echo 'host madvise mergeable 0x40000000 \(Self.longStepSize)' >/run/\(name)0/control
      cpu_time() { read -r _ _ _ _ _ _ _ _ _ _ _ _ _ user system _ </proc/$pid/stat; time=$((user + system)); }
      # The scan of new pages takes long. A write to the other node that takes the daemon 20 ms of CPU time is one during the scan. If the
      # daemon did not answer before the scan has ended, there would be one such write, and not two.
      for try in 1 2 3 4 5 6 7 8 9 10; do
        printf 'host madvise %s 0x40000000 \(Self.longStepSize)\n' dontneed populate-write >/run/\(name)0/control
        { echo 'host ksm' >/run/\(name)0/control; : >/tmp/\(name).ended; } & answers=0
        until [ -e /tmp/\(name).ended ]; do
          cpu_time; before=$time; printf B >/dev/\(name)1; cpu_time
          [ $((time - before)) -lt 2 ] || answers=$((answers + 1))
        done
        wait; rm /tmp/\(name).ended
        [ $answers -ge 2 ] && echo "answers during the step" && break
      done
      head -c1 /dev/\(name)1; head -n 1 /run/\(name)1/walk
      sed -n 2p /run/\(name)0/control; $virt_walkerd stop --name \(name)0
      """)
    #expect(
      run.output == """
        2
        answers during the step
        Bwalk of 0x40000000: 4K granule, 40-bit IPA, start level 1
          result 0

        """,
      "\(run.output)\(run.errors)")
  }

  // MARK: - A guest that has stopped

  @Test func statusSaysThatAGuestHasStopped() async throws {
    let log = "/tmp/\(RunningDaemon.uniqueName()).log"
    let daemon = try await RunningDaemon("--log-file \(log)")
    let tree = daemon.tree
    let run = try await shell(
      """
      status() { $virt_walkerd status | grep -A1 '^\(daemon.node):' | grep '^  '; }
      status; echo 'host slot delete' >\(tree)/control
      for i in 1 2 3; do head -c1 \(daemon.node) 2>/dev/null; done; status
      grep -c 'has stopped' \(log); grep -o 'EIO: .*' \(log); echo 1 >\(tree)/reset; status
      head -c1 \(daemon.node) | od -An -tx1; rm \(log)
      """)
    #expect(
      run.output == """
          the guest has stopped: each read and write of \(daemon.node) fails with EIO. \(tree)/walk says why; to boot the machine anew: echo 1 > \(tree)/reset
        1
        EIO: to boot the machine anew: echo 1 > \(tree)/reset
         00

        """, "\(run.errors)")
    try await daemon.stop()
  }

  /// A server of a tree that never answers, as after an attack, does not stop `status`.
  @Test func statusDoesNotWaitForATree() async throws {
    let daemon = try await RunningDaemon()
    let pid = try await daemon.pid
    let run = try await shell(
      """
      kill -STOP \(pid); $virt_walkerd status | cat | grep -A1 '^\(daemon.node):' | sed -n 's/^  //p'
      kill -CONT \(pid)
      """)
    #expect(
      run.output
        == "\(daemon.tree) does not answer. To end its server: virt-walkerd stop \(daemon.selector)\n"
    )
    try await daemon.stop()
  }

  // MARK: - The place of the tree

  @Test func noTree() async throws {
    let daemon = try await RunningDaemon("--tree none")
    #expect(!FileManager.default.fileExists(atPath: daemon.tree))
    let status = try await shell("$virt_walkerd status | grep \(daemon.node):")
    #expect(!status.output.contains("tree"))
    try await daemon.stop()
  }

  /// An existing directory stays. A directory that the daemon makes is removed.
  @Test func aTreeAnywhere() async throws {
    let name = RunningDaemon.uniqueName()
    let place = "/tmp/\(name)"
    let run = try await shell(
      """
      serve() { $virt_walkerd serve --detach --name \(name) --tree "$1" 2>&1 | grep -v backend; }
      serve \(place)/tree; mkdir \(place) && serve \(place) && cat \(place)/ipa_range
      $virt_walkerd stop --name \(name); ls -A \(place); serve \(place)/tree && ls \(place)
      $virt_walkerd stop --name \(name); ls -A \(place); echo mine >\(place)/file; serve \(place)
      serve \(place)/file; cat \(place)/file; rm -r \(place)
      """)
    let ready = "/dev/\(name) is ready (fuse, pid "
    let lines = run.output.split(separator: "\n").map { line in
      line.hasPrefix(ready) ? "ready" : String(line.trimmingPrefix("virt-walkerd: "))
    }
    let expected: [String] = [
      "cannot use the directory of \(place)/tree: No such file or directory: choose a tree in a directory that exists: --tree DIR",
      "ready", "40", "ready", "tree",
      "\(place) exists and is no empty directory: choose another directory: --tree DIR",
      "\(place)/file exists and is no empty directory: choose another directory: --tree DIR",
      "mine",
    ]
    #expect(lines == expected, "\(run.output)\(run.errors)")
    try await expectNothingLeft(of: "/dev/\(name)")
  }

  /// The usual place of the tree can be the node's own path. A request of the daemon to its own node would not return.
  @Test func nodeAtThePlaceOfTheTree() async throws {
    let name = RunningDaemon.uniqueName()
    let run = try await shell(
      """
      $virt_walkerd serve --detach --path /run/\(name) 2>&1 | sed 's/.*pid.*/ready/'
      printf A >/run/\(name); head -c1 /run/\(name); $virt_walkerd stop --path /run/\(name)
      $virt_walkerd serve --detach --path /tmp/\(name) --tree /tmp/\(name) 2>&1; ls /run /tmp | grep \(name)
      """)
    let reason = "is a node or a tree of this process already: choose another directory: --tree DIR"
    let backend = "virt-walkerd: backend fuse: --path asks for a file\n"
    #expect(
      run.output == """
        \(backend)virt-walkerd: no inspection tree: /run/\(name) \(reason)
        ready
        A\(backend)virt-walkerd: /tmp/\(name) \(reason)

        """, "\(run.errors)")
  }

  @Test func theTreeIsTakenAway() async throws {
    let run = try await inTree("", "cd /; umount -l $OLDPWD; printf A >$node; head -c1 $node")
    #expect(run.output == "A", "\(run.errors)")
  }

  @Test func killedDaemonsTreeIsClearedAway() async throws {
    let daemon = try await RunningDaemon()
    try await daemon.killWithKeeper()
    let next = try await RunningDaemon(name: String(daemon.node.dropFirst(5)))
    let walk = try await shell("head -n 1 \(next.tree)/walk")
    #expect(walk.output.hasPrefix("walk of "))
    try await next.stop()
  }

  /// A keeper may be killed after umount and before rmdir. The next daemon removes the empty directory.
  @Test func killedDaemonsEmptyDirectoryIsClearedAway() async throws {
    let daemon = try await RunningDaemon()
    try await daemon.killWithKeeper()
    let unmounted = try await shell(
      // Another program that looks at all mounts may have the mount open for a moment.
      "soon umount \(daemon.tree) && ls -d \(daemon.tree)")
    #expect(unmounted.output == "\(daemon.tree)\n")
    let next = try await RunningDaemon(name: String(daemon.node.dropFirst(5)))
    let walk = try await shell("head -n 1 \(next.tree)/walk")
    #expect(walk.output.hasPrefix("walk of "))
    try await next.stop()
  }

  // MARK: - Several machines

  @Test func machinesOfOneDaemon() async throws {
    let name = RunningDaemon.uniqueName()
    let run = try await shell(
      """
      $virt_walkerd serve --detach --name \(name) --count 20 2>/dev/null | wc -l
      for i in $(seq 0 19); do printf "\\\\$(printf %o $((65 + i)))" >/dev/\(name)$i; done
      for i in $(seq 0 19); do head -c1 /dev/\(name)$i; done; echo
      echo 1 >/run/\(name)3/reset; head -c1 /dev/\(name)3 | od -An -tx1; head -c1 /dev/\(name)4
      cat /run/\(name)*/stats | grep -c '^writes 1$'; $virt_walkerd status | grep -c /dev/\(name)
      grep -c /\(name) /proc/self/mounts
      $virt_walkerd stop --name \(name)7
      ls -d /dev/\(name)* /run/\(name)* 2>/dev/null; $virt_walkerd status | grep \(name)
      """)
    #expect(
      run.output == "20\nABCDEFGHIJKLMNOPQRST\n 00\nE20\n20\n40\n", "\(run.output)\(run.errors)")
  }

  @Test(arguments: [
    "--poll 0", "--poll 10001", "--poll soon", "--count 0", "--count 501", "--count x", "--tree ''",
    "--tree-mode 888",
  ])
  func wrongUsage(options: String) async throws {
    let run = try await shell(
      "$virt_walkerd serve --detach --name \(RunningDaemon.uniqueName()) \(options)")
    #expect(run.status == .exited(64), "\(run.errors)")
  }

  /// The daemon makes the directory of the trees, and removes it however the daemon ends. An existing directory stays.
  @Test func directoryOfManyTrees() async throws {
    let name = RunningDaemon.uniqueName()
    let run = try await shell(
      """
      umask 077
      serve="$virt_walkerd serve --detach --name \(name) --count 2 --log-level error"
      trees=/tmp/\(name)
      $serve --tree $trees >/dev/null && ls $trees && stat -c %a $trees && head -n 1 $trees/\(name)1/walk | cut -c1-8
      $virt_walkerd stop --name \(name)1; ls -d $trees
      $serve --tree $trees >/dev/null
      kill_served $($virt_walkerd status | sed -n 's|^/dev/\(name)0: .*pid \\([0-9]*\\).*|\\1|p')
      [ -e $trees ] || echo 'gone after kill -9'
      mkdir $trees
      $serve --tree $trees/ >/dev/null && $virt_walkerd stop --name \(name)0; stat -c %a $trees; rmdir $trees
      echo mine >/dev/\(name)1; $serve --tree $trees 2>/dev/null; echo $?; ls -d $trees; rm /dev/\(name)1
      $serve --tree $trees/none/trees
      """)
    #expect(
      run.output
        == "\(name)0\n\(name)1\n755\nwalk of \ngone after kill -9\n700\n73\n", "\(run.errors)")
    #expect(
      run.errors.hasSuffix(
        "cannot create /tmp/\(name)/none/trees: No such file or directory: choose a directory that you may make: --tree DIR\n"
      ))
    for number in 0...1 { try await expectNothingLeft(of: "/dev/\(name)\(number)") }
  }

  /// If one of several nodes cannot be made, none is left.
  @Test func allOrNone() async throws {
    let name = RunningDaemon.uniqueName()
    let run = try await shell(
      "echo mine >/dev/\(name)2; $virt_walkerd serve --detach --name \(name) --count 4; echo $?; ls -d /dev/\(name)* /run/\(name)*; rm /dev/\(name)2"
    )
    #expect(run.output == "73\n/dev/\(name)2\n")
    #expect(run.errors.contains("/dev/\(name)2 exists and is not ours"))
  }
}
