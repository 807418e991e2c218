import DaemonSupport
import Foundation
import Testing

/// Tests of a daemon with a real kernel behind the node, whose host is a program that answers as the monitor does
/// (Tests/FakeHost). The tests of the real host are in the layer `lab` of scripts/test.
@Suite(.endingDaemons, .timeLimit(.minutes(5))) struct KernelEngineTests {
  private let name = RunningDaemon.uniqueName()
  private var node: String { "/dev/\(name)" }
  private var tree: String { "/run/\(name)" }

  /// Runs a line of shell beside a daemon. `serve DEVICES` starts the daemon, and `finish` ends it.
  ///
  /// - Parameter line: The line. `$node` and `$tree` are those of the daemon, and `log` prints its log.
  private func run(_ line: String) async throws -> Outcome {
    let fakeHost = try await Probe.fakeHost.path()
    return try await shell(
      """
      directory=/tmp/\(name); mkdir $directory && chmod 755 $directory && cd $directory || exit 99
      cp \(fakeHost) emulator; : >Image; : >host-initramfs.cpio
      node=\(node) tree=\(tree)
      serve() {
          printf "$1" >guest-initramfs.cpio; shift
          $virt_walkerd serve --engine kernel --images $directory --emulator $directory/emulator \
              --name \(name) --log-file log --detach "$@" >/dev/null
      }
      finish() { $virt_walkerd stop --name \(name); pgrep -f $directory/emulator; }
      \(line)
      cd / && rm -r $directory
      """, limit: .seconds(120))
  }

  private func expect(_ run: Outcome, _ output: String) {
    #expect(run.output == output, "\(run.output)\(run.errors)")
  }

  @Test func byteGoesToTheGuestAndBack() async throws {
    let run = try await run(
      """
      serve virt_walker; printf A >$node; head -c1 $node; printf XYZ >$node; head -c1 $node; echo
      cat $tree/guest/dmesg $tree/host/dmesg; grep kvm_mmio $tree/trace | tail -n 1; cat $tree/pte $tree/code
      sed -n 3,4p $tree/walk; printf error | dd of=$node 2>&1 | grep -o 'No such device'; finish
      """)
    expect(
      run,
      """
      AZ
      [    1.000000] guest: booted
      [    3.000000] guest: write length: 1 bytes
      [    2.000000] guest: release
      [    2.000000] guest: release
      [    3.000000] guest: write length: 3 bytes
      [    2.000000] guest: release
      [    2.000000] guest: release
      [    4.000000] host: hidden
      [    4.000000] host: hidden
         vcpu-7   [000] ..... 4.000000: kvm_mmio: fake
      02d00000800007fd
      kernel: Linux 0.0-fake, device /dev/virt_walker
      level  table        index  entry             is
          1  0x0048000000      1  0000000048002003  table at 0x48002000
      No such device

      """)
  }

  /// A guest whose kernel never begins is booted once more.
  @Test func guestThatDoesNotBeginIsBootedAgain() async throws {
    let run = try await run("serve late; printf A >$node; head -c1 $node; finish")
    expect(run, "A")
  }

  /// A signal for a client ends its call in the guest, and the next call works.
  @Test func signalReachesTheGuest() async throws {
    let run = try await run(
      """
      serve virt_walker; printf wait >$node
      timeout 2 head -c1 $node; echo $?; printf B >$node; printf go >$node; head -c1 $node; finish
      """)
    expect(run, "124\nB")
  }

  /// The log has the lines of a release as soon as close(2) has returned, although the kernel does not wait for it.
  @Test func logShowsTheReleaseOfAClosedFile() async throws {
    let run = try await run(
      """
      serve virt_walker; before=$(grep -c release $tree/guest/dmesg)
      printf slow >$node; grep -c release $tree/guest/dmesg
      exec 5<$node; exec 5<&-; grep -c release $tree/guest/dmesg; echo $before; finish
      """)
    expect(run, "1\n2\n0\n")
  }

  @Test func stepsOfTheHostAreObserved() async throws {
    let run = try await run(
      """
      serve virt_walker; printf A >$node; echo 'host fork' >$tree/control; cat $tree/control
      echo 'guest ldrb w0,[0x0b000000]' 2>/dev/null >$tree/control; grep -c 'runs Linux' $tree/control; finish
      """)
    expect(
      run,
      """
      host fork
        result 0
        leaf 0x40000000 level 2 02080000000007fd @A counts 2 2
      1

      """)
  }

  /// After the end of the guest or of the host, calls fail, and a reset boots a new guest.
  @Test(arguments: [
    ("panic", "[    5.000000] Kernel panic - not syncing: fake"),
    ("crash", "[    6.000000] Unable to handle a fake request"),
  ])
  func resetBootsAgain(word: String, line: String) async throws {
    let run = try await run(
      """
      serve virt_walker; printf \(word) >$node || echo failed; head -c1 $node || echo failed
      cat $tree/guest/dmesg $tree/host/dmesg | grep -F '\(line)'; grep -c 'has stopped' log
      $virt_walkerd status | grep -A1 "^$node:" | grep -c 'has stopped'
      echo 1 >$tree/reset; printf C >$node; head -c1 $node; finish
      """)
    expect(run, "failed\nfailed\n\(line)\n1\n1\nC")
  }

  /// A host whose frames make no sense, or that ends, does not end the daemon.
  @Test(arguments: ["lie", "malformed", "exit"])
  func hostileHostDoesNotEndTheDaemon(word: String) async throws {
    let run = try await run(
      """
      serve virt_walker; printf \(word) >$node || echo failed; printf A >$node && head -c1 $node || echo failed
      cat $tree/stats >/dev/null && echo served; echo 1 >$tree/reset && echo booted
      grep -o 'the emulator has ended: restart the daemon' log | head -n 1; finish
      """)
    expect(
      run,
      word == "lie"
        ? "failed\nAserved\nbooted\n"
        : "failed\nfailed\nserved\nthe emulator has ended: restart the daemon\n")
  }

  /// compare shows the lines in which the two engines differ, and leaves nothing.
  @Test func compareShowsDifferences() async throws {
    let run = try await run(
      """
      printf virt_walker >guest-initramfs.cpio
      compare() {
          TMPDIR=$directory $virt_walkerd compare --images $directory --emulator $directory/emulator --name \(name) -- "$@" 2>/dev/null
          echo "$?"
      }
      compare 'printf A >$VIRT_WALKER_NODE; head -c1 $VIRT_WALKER_NODE; echo B'
      compare sh -c 'printf error 2>/dev/null >$VIRT_WALKER_NODE || exit 3' | sed -n '/status/,/ 0/p'
      for wrong in --help "" "no-file" "no-file -- true" "--no-such -- true"; do
          $virt_walkerd compare $wrong >/dev/null 2>&1 </dev/null; echo "$wrong: $?"
      done
      ls -d $node virt-walker-compare.* 2>/dev/null
      """)
    expect(
      run,
      """
      guest/dmesg:
        kernel                         model
        guest: write length: 1 bytes ! write length: 1 bytes
        guest: release               ! read length: 1 bytes
        guest: release               !
      host/dmesg:
        kernel         model
        host: hidden ! MMIO to HIDE and SEEK register detected, len: 1
                     ! MMIO to HIDE and SEEK register detected, len: 1
      1
      exit status:
        kernel   model
        3      ! 0
      --help: 0
      : 64
      no-file: 66
      no-file -- true: 64
      --no-such -- true: 64

      """)
  }

  /// Each step of a scenario has a line, and the sides of a difference stand beside each other.
  @Test func compareRunsScenarios() async throws {
    let run = try await run(
      """
      compare() {
          COLUMNS=200 $virt_walkerd compare --images $directory --emulator $directory/emulator "$@"
          echo "$?"
      }
      machine='machine cpu=cortex-a76 backing=anonymous memory=64M'
      printf '# no step\n%s\nhost fork\n  result 0\nhost end-fork\n' "$machine" >same
      printf '%s\nhost fork\nguest ldrb w0, [0x0b000001]\n' "$machine" >different
      for step in 'host age 0x40000000' 'host ksm'; do printf '%s\nhost fork\n%s\n' "$machine" "$step"; done >ends-1
      sed -n '4,$p' ends-1 >ends-2; sed -i '4,$d' ends-1; echo 'host fork' >>ends-2
      printf 'machine granule=16K cpu=max\nhost fork\n' >large
      printf 'machine cpu=none\n' >wrong
      compare same; compare different; compare ends-1; compare - <ends-2
      compare large; compare wrong; compare --module x.c same; pgrep -f $directory/emulator
      """)
    expect(
      run,
      """
      same:3: step 1: host fork: same
      same:5: step 2: host end-fork: same
      2 steps, Linux 0.0-fake and the model: all same
      0
      different:2: step 1: host fork: same
      different:3: step 2: guest ldrb w0,[0x0b000001]
        kernel                  model
        run hung pc +0 x0 0x0 ! run retired pc +4 x0 0x0
                              ! abort esr=82000005 far=0000000080000000 hpfar=0000800000
                              ! abort esr=93000005 far=000000000b000001 hpfar=00000b0000
                              ! log MMIO to HIDE and SEEK register detected, len: 1
                              ! leaf 0x40000000 level 1 0000000000000000 counts 1 -> level 1 0000000000000000 counts 2
                              ! leaf 0xb000001 level 1 0000000000000000 counts 1 -> level 1 0000000000000000 counts 2
      2 steps, Linux 0.0-fake and the model: 1 same, 1 different
      1
      ends-1:2: step 1: host fork: same
      ends-1:3: step 2: host age 0x40000000
        kernel                                                     model
        the recorder has ended: recorder: line 4: a fake failure ! result ENOENT
                                                                 ! leaf 0x40000000 level 1 0000000000000000 counts 1
      2 steps, Linux 0.0-fake and the model: 1 same, 1 different
      1
      standard input:2: step 1: host fork: same
      standard input:3: step 2: host ksm
        kernel                   model
        the emulator has ended ! result ETIMEDOUT
                               ! leaf 0x40000000 level 1 0000000000000000 counts 1
      standard input: the steps behind it are not compared
      3 steps, Linux 0.0-fake and the model: 1 same, 1 different, 1 not compared
      1
      69
      65
      64

      """)
  }

  /// A comparison that is killed leaves nothing.
  @Test(arguments: ["TERM", "KILL"])
  func killedComparisonLeavesNothing(signal: String) async throws {
    let run = try await run(
      """
      printf virt_walker >guest-initramfs.cpio
      $virt_walkerd compare --images $directory --emulator $directory/emulator --name \(name) -- 'exec sleep 60' 2>log &
      soon test -e $tree/pte; kill -\(signal) $!; soon test ! -e $node; soon test ! -e $tree
      grep -c 'the parent process has ended' log
      """)
    expect(run, "1\n")
  }

  /// A start that fails says why, and leaves nothing.
  @Test(arguments: [
    ("fails", "insmod: unknown symbol walk"),
    ("none", "it has made no character device: register one, e.g. by misc_register()"),
    ("never", "the guest has not started: the guest hangs"),
    ("several", "the module has made several devices (one, two): --name selects one of them"),
  ])
  func failedStartSaysWhy(devices: String, reason: String) async throws {
    let run = try await run(
      """
      serve \(devices) 2>/dev/null || echo $?; grep -oF '\(reason)' log; ls -d $node $tree 2>/dev/null
      grep -F 'x0a' log
      """)
    expect(run, "69\n\(reason)\n")
  }

  @Test(arguments: [
    ("--count 2", "--count is not for --engine kernel"), ("--granule 64K", "pages of 4K"),
    ("--memory 64M", "128M to 1G"), ("--backing memfd", "give anonymous, huge or hugetlb"),
    ("--sanitize", "CONFIG_KASAN=y"), ("--hook x.c", "the images have theirs already"),
  ])
  func wrongOption(options: String, reason: String) async throws {
    let run = try await run("serve virt_walker \(options) || echo $?")
    expect(run, "64\n")
    #expect(run.errors.contains(reason), "\(run.errors)")
  }
}
