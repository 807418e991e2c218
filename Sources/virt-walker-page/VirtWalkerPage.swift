import ArgumentParser
import CharacterDeviceServer
import Glibc
import NIOCore
import NIOPosix
import Pages
import Stage2Sim
import SystemPackage

/// The program that `virt-walkerd page` becomes. All its rights are the descriptors that it gets.
@main
struct VirtWalkerPage: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "virt-walker-page",
    abstract: "Serve the page of virt-walkerd page. Start that command instead of this program.",
    shouldDisplay: false)

  @Option(help: "The descriptor of a socket that listens.") var listener: Int32
  @Option(help: "The descriptor of the file walk of an inspection tree.") var walk: Int32
  @Option(help: "The descriptor of trace_pipe.") var trace: Int32
  @Option(help: "The descriptor of guest/dmesg_pipe.") var guestLog: Int32
  @Option(help: "The descriptor of control.") var control: Int32?
  @Option(help: "The descriptor of reset.") var reset: Int32?
  @Option(help: "The title of the page.") var title: String
  @Option(help: "The machine in words.") var machine: String

  func run() throws {
    do throws(NodeError) {
      try Sandbox.enterUnfiltered()
    } catch {
      Self.print(error: error.description)
      throw ExitCode(77)
    }
    let files = TreeFiles(
      walk: FileDescriptor(rawValue: walk), trace: FileDescriptor(rawValue: trace),
      guestLog: FileDescriptor(rawValue: guestLog), control: control.map(FileDescriptor.init),
      reset: reset.map(FileDescriptor.init))
    let state = LiveState(
      LivePage(title: title, description: machine, configuration: Self.configuration(of: machine)))
    let server = PageServer(
      state: state, files: files, watchSecret: Self.secret(),
      controlSecret: control == nil ? nil : Self.secret())
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let channel = try server.start(on: listener, group: group)
    let address = "\(channel.localAddress?.ipAddress ?? "?"):\(channel.localAddress?.port ?? 0)"
    var lines = "watch:   http://\(address)/\(server.watchSecret)/\n"
    if let secret = server.controlSecret { lines += "control: http://\(address)/\(secret)/\n" }
    _ = try FileDescriptor.standardOutput.writeAll(lines.utf8)
    // This thread reads the tree, so that a daemon that does not answer holds up no watcher.
    while true {
      do {
        let (trace, guestLog) = try files.readNews()
        if !trace.isEmpty || state.isIncomplete {
          let walk = try files.readWalk()
          state.take(trace: trace, guestLog: guestLog, walk: walk)
        }
      } catch {
        Self.print(error: "the tree cannot be read any more (\(error)): the daemon has ended")
        throw ExitCode(69)
      }
      usleep(100_000)
    }
  }

  private static func print(error: String) {
    _ = try? FileDescriptor.standardError.writeAll("virt-walker-page: \(error)\n".utf8)
  }

  /// 128 random bits.
  private static func secret() -> String {
    var generator = SystemRandomNumberGenerator()
    return (0..<2).map { _ in
      let digits = String(generator.next() as UInt64, radix: 16)
      return String(repeating: "0", count: 16 - digits.utf8.count) + digits
    }.joined()
  }

  /// The machine of the words that `virt-walkerd status` prints: `cortex-a76 anonymous 256M 4K pages 40-bit IPA`.
  private static func configuration(of text: String) -> VirtualMachine.Configuration {
    let words = text.split(separator: " ").map(String.init)
    var configuration = VirtualMachine.Configuration(backing: .anonymous, memorySize: 64 << 20)
    for (index, word) in words.enumerated() {
      if let cpu = CPUModel.allCases.first(where: { $0.rawValue == word }) {
        configuration.cpu = cpu
      } else if index + 1 < words.count, words[index + 1] == "pages", let granule = Granule(word) {
        configuration.granule = granule
      } else if word.hasSuffix("-bit"), let bits = Int(word.dropLast(4)), (32...48).contains(bits) {
        configuration.ipaBits = bits
      } else if word == "Linux", index + 1 < words.count,
        let kernel = KernelVersion(rawValue: words[index + 1])
      {
        configuration.kernel = kernel
      }
    }
    return configuration
  }
}
