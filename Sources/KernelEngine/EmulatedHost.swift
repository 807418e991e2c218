import CLabLink
import CLinux
import CharacterDeviceServer
import Glibc
import Scenarios
import Stage2Sim
import SystemPackage
import UserCode

/// The emulated machine for arm64 in which the host's kernel runs: a process of QEMU.
///
/// The process has no rights but to read the two images. It ends with the daemon.
public final class EmulatedHost {
  /// The files of a host.
  public struct Images: Hashable, Sendable {
    /// The kernel, arch/arm64/boot/Image.
    public var kernel: FilePath
    /// The initramfs with the monitor (Kernel/lab).
    public var initramfs: FilePath
    /// The program qemu-system-aarch64.
    public var emulator: FilePath

    /// The place of QEMU in Debian's package qemu-system-arm.
    public static let usualEmulator = FilePath("/usr/bin/qemu-system-aarch64")

    public init(
      kernel: FilePath, initramfs: FilePath, emulator: FilePath = Images.usualEmulator
    ) {
      self.kernel = kernel
      self.initramfs = initramfs
      self.emulator = emulator
    }
  }

  let link: MonitorLink
  let console: HostConsole
  /// QEMU's own monitor, for commands.
  private let commands: FileDescriptor
  private let process: pid_t
  private var guestLines = LastLines()
  private(set) var isRunning = true

  /// Memory of the host beside the guest's, in bytes: its kernel, its initramfs, tables, and room for copies of the guest's pages.
  private static let ownMemory: UInt64 = 768 << 20

  /// Powers on a host.
  ///
  /// - Parameters:
  ///   - images: The files, which `user` can read.
  ///   - configuration: The CPU and the guest's memory.
  ///   - user: The user as whom the emulator runs; nil for the present one.
  /// - Throws: ``EngineFailure`` if the emulator does not start.
  public convenience init(
    _ images: Images, _ configuration: VirtualMachine.Configuration, user: Sandbox.User? = nil
  ) throws(EngineFailure) {
    guard access(images.emulator.string, X_OK) == 0 else {
      throw EngineFailure(
        "there is no \(images.emulator): install the package qemu-system-arm, and try again")
    }
    do {
      let pairs = try (0..<3).map { _ in try Self.socketPair() }
      let memory = (Self.ownMemory + 2 * configuration.memorySize) >> 20
      let program = ChildProgram(
        path: images.emulator.string,
        arguments: [
          "-M", "virt,virtualization=on,gic-version=3", "-cpu", Self.cpu(configuration.cpu),
          "-accel", "tcg,thread=multi", "-smp", "2", "-m", "\(memory)M",
          "-nodefaults", "-display", "none",
          "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
          "-kernel", images.kernel.string, "-initrd", images.initramfs.string,
          "-append", "console=ttyAMA0 ignore_loglevel panic=-1 oops=panic log_buf_len=4M",
          "-chardev", "socket,id=console,fd=4", "-serial", "chardev:console",
          "-chardev", "socket,id=commands,fd=5", "-mon", "chardev=commands,mode=readline",
          "-chardev", "socket,id=link,fd=3", "-device", "virtio-serial-device",
          "-device", "virtserialport,chardev=link,name=\(LAB_PORT)",
        ],
        descriptors: [nil, nil, .standardError] + pairs.map(\.theirs),
        user: user,
        rules: .init(
          .tool,
          [
            images.kernel, images.initramfs, images.emulator, FilePath("/usr"), FilePath("/lib"),
            FilePath("/lib64"), FilePath("/etc/ld.so.cache"), FilePath("/dev/urandom"),
          ].map { .init($0.string) } + [.init("/dev/null", writable: true)]))
      let process = try program.start()
      for pair in pairs { try? pair.theirs.close() }
      self.init(process, link: pairs[0].ours, console: pairs[1].ours, commands: pairs[2].ours)
    } catch {
      throw EngineFailure("cannot start \(images.emulator): \(error): close other programs")
    }
  }

  /// A host whose process runs already.
  ///
  /// - Parameters:
  ///   - process: The process; 0 if there is none.
  ///   - link: The socket of the link to the monitor.
  ///   - console: The socket of the host's serial port.
  ///   - commands: The socket of QEMU's monitor.
  init(_ process: pid_t, link: FileDescriptor, console: FileDescriptor, commands: FileDescriptor) {
    self.process = process
    self.link = MonitorLink(link)
    self.console = HostConsole(console)
    self.commands = commands
    _ = fcntl(commands.rawValue, F_SETFL, O_NONBLOCK)
  }

  deinit {
    end()
    try? commands.close()
  }

  /// Switches the machine off.
  public func end() {
    guard isRunning else { return }
    isRunning = false
    command("quit")
    guard process > 0 else { return }
    // The daemon may have no right to send a signal any more. The emulator ends with the daemon in that case.
    kill(process, SIGKILL)
    var status: Int32 = 0
    for _ in 0..<200 {
      if waitpid(process, &status, WNOHANG) != 0 { return }
      usleep(10_000)
    }
  }

  /// Switches the machine off and on again.
  func powerCycle() {
    console.forget()
    command("system_reset")
  }

  /// Takes what the host has written to its console.
  func readConsole() { console.read() }

  /// Keeps a line of the guest for ``lastLines``.
  func noteGuestLine(_ line: String) { guestLines.append(line) }

  /// The last lines of the host and of the guest, for a message about a failure.
  var lastLines: [String] { console.lastLines + guestLines.lines }

  private func command(_ text: String) {
    _ = try? commands.writeAll("\(text)\n".utf8)
  }

  private static func cpu(_ model: CPUModel) -> String {
    // KVM of Linux 6.1 does not start with FEAT_LPA2.
    model == .max ? "max,lpa2=off" : model.rawValue
  }

  private static func socketPair() throws(Errno) -> (ours: FileDescriptor, theirs: FileDescriptor) {
    var pair: [Int32] = [-1, -1]
    let kind = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
    guard socketpair(AF_UNIX, kind, 0, &pair) == 0 else { throw .current }
    return (FileDescriptor(rawValue: pair[0]), FileDescriptor(rawValue: pair[1]))
  }
}

/// The serial port of the host, which has all lines of its kernel, also the last ones before a crash.
final class HostConsole {
  let descriptor: FileDescriptor
  /// The text since the last call of ``forget()``.
  private var text: [UInt8] = []
  private var last = LastLines()
  private var buffer = [UInt8](repeating: 0, count: 16 << 10)

  /// The most bytes of ``text``.
  private static let mostText = 256 << 10

  init(_ descriptor: FileDescriptor) {
    self.descriptor = descriptor
    _ = fcntl(descriptor.rawValue, F_SETFL, O_NONBLOCK)
  }

  deinit { try? descriptor.close() }

  func read() {
    while true {
      let count = Glibc.read(descriptor.rawValue, &buffer, buffer.count)
      guard count > 0 else { return }
      for byte in buffer[..<count] where byte != UInt8(ascii: "\r") { text.append(byte) }
      last.append(buffer[..<count])
      if text.count > Self.mostText { text.removeFirst(text.count - Self.mostText / 2) }
    }
  }

  /// Forgets the text so far, because the host's log has come by the link.
  func forget() { text = [] }

  /// The text that has come since the last line of the link.
  func takeText() -> [UInt8] {
    defer { text = [] }
    return text
  }

  var lastLines: [String] { last.lines }
}

/// The last lines of a text that comes in parts.
struct LastLines {
  private(set) var lines: [String] = []
  private var rest: [UInt8] = []

  /// The number of lines that are kept.
  private static let most = 20

  mutating func append(_ bytes: some Sequence<UInt8>) {
    for byte in bytes {
      if byte == UInt8(ascii: "\n") {
        append(String(decoding: rest, as: UTF8.self))
        rest = []
      } else if rest.count < 1024, byte != UInt8(ascii: "\r") {
        rest.append(byte)
      }
    }
  }

  mutating func append(_ line: String) {
    lines.append(line.printable)
    if lines.count > Self.most { lines.removeFirst() }
  }
}
