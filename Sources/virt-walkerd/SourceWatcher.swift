import CLinux
import CharacterDeviceServer
import Glibc
import KernelLab
import SystemPackage

/// A process beside a daemon with a real kernel, which builds the user's code anew when a file of it changes. The daemon itself has no right to
/// read files or to start programs.
final class SourceWatcher {
  /// A message of the process.
  enum Message: Equatable {
    /// The module was built: the content of the guest's initramfs.
    case built([UInt8])
    /// The code does not compile: the lines of the compiler and the reason.
    case failed(String)
    /// The host's kernel is another one now. A daemon cannot start an emulator.
    case hostChanged
    /// The process was killed.
    case end
  }

  /// A descriptor that is readable when there may be a message.
  let descriptor: FileDescriptor
  private var stream = Stream()

  /// Starts the process. Call this while this process is still root, if it is, and has one thread.
  ///
  /// - Parameters:
  ///   - paths: The files and directories to watch.
  ///   - present: The host that was built.
  ///   - build: A function that builds what has changed.
  init(
    _ paths: [FilePath], present: BuiltImages,
    build: @escaping () throws -> BuiltImages
  ) throws {
    let before = paths.map(Self.stamps)
    let pipe = try FileDescriptor.pipe()
    let process = clinux_fork()
    if process == 0 {
      Self.run(paths, before, present, build, to: pipe.writeEnd)
    }
    try pipe.writeEnd.close()
    guard process > 0 else { throw Errno.current }
    descriptor = pipe.readEnd
    _ = fcntl(descriptor.rawValue, F_SETFD, FD_CLOEXEC)
    _ = fcntl(descriptor.rawValue, F_SETFL, O_NONBLOCK)
  }

  /// Reads what has come.
  func messages() -> [Message] {
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    while true {
      let count = read(descriptor.rawValue, &buffer, buffer.count)
      if count > 0 {
        stream.append(buffer[..<count])
      } else if count < 0, errno == EINTR {
        continue
      } else {
        let isEnd = count == 0
        return stream.take() + (isEnd ? [.end] : [])
      }
    }
  }

  // MARK: - The process

  /// The time between two looks at the files, in milliseconds.
  private static let interval: Int32 = 500

  private static func run(
    _ paths: [FilePath], _ stamps: [[Stamp]], _ present: BuiltImages,
    _ build: () throws -> BuiltImages, to output: FileDescriptor
  ) -> Never {
    setsid()
    clinux_set_name("walkerd-watch")
    signal(SIGPIPE, SIG_IGN)
    closeDescriptors(but: [STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO, output.rawValue])
    _ = fcntl(output.rawValue, F_SETFD, FD_CLOEXEC)
    let null = open("/dev/null", O_RDWR | O_CLOEXEC)
    if null >= 0 { for standard in STDIN_FILENO...STDERR_FILENO { dup2(null, standard) } }
    var (built, latest) = (stamps, stamps)
    var host = present.host
    while true {
      // The end of the daemon is an event of its pipe.
      var entry = pollfd(fd: output.rawValue, events: 0, revents: 0)
      guard poll(&entry, 1, interval) == 0 else { _exit(0) }
      let now = paths.map(Self.stamps)
      // An editor may write a file in parts: the files are built when they have not changed between two looks.
      defer { latest = now }
      guard now != built, now == latest else { continue }
      built = now
      let message: Message
      do {
        let images = try build()
        if images.host != host {
          message = .hostChanged
        } else {
          message = .built(try images.guest.content(most: 64 << 20))
        }
        host = images.host
      } catch let failure as LabFailure {
        message = .failed((failure.lines + [failure.description]).joined(separator: "\n"))
      } catch {
        message = .failed("\(error)")
      }
      guard (try? output.writeAll(Stream.bytes(of: message))) != nil else { _exit(0) }
    }
  }

  /// A file and the time of its last change.
  struct Stamp: Equatable {
    let name: String
    let size: Int
    let seconds: Int
    let nanoseconds: Int
  }

  /// The stamps of a file, or of the files in a directory and in the directories below it.
  static func stamps(of path: FilePath) -> [Stamp] { stamps(of: path, depth: 0) }

  private static func stamps(of path: FilePath, depth: Int) -> [Stamp] {
    var status = stat()
    guard lstat(path.string, &status) == 0, depth < 5 else { return [] }
    guard status.st_mode & S_IFMT == S_IFDIR else {
      return [
        Stamp(
          name: path.string, size: Int(status.st_size), seconds: status.st_mtim.tv_sec,
          nanoseconds: status.st_mtim.tv_nsec)
      ]
    }
    guard let directory = opendir(path.string) else { return [] }
    defer { closedir(directory) }
    var names: [String] = []
    while let entry = readdir(directory), names.count < 1000 {
      let name = withUnsafeBytes(of: entry.pointee.d_name) {
        String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
      }
      if !name.hasPrefix(".") { names.append(name) }
    }
    return names.sorted().flatMap { stamps(of: path.appending($0), depth: depth + 1) }
  }

  // MARK: - The pipe

  /// The messages in a pipe: a letter, the number of bytes, and the bytes.
  struct Stream {
    private var bytes: [UInt8] = []

    mutating func append(_ part: some Sequence<UInt8>) { bytes += part }

    static func bytes(of message: Message) -> [UInt8] {
      let (kind, content): (Character, [UInt8]) =
        switch message {
        case .built(let initramfs): ("B", initramfs)
        case .failed(let text): ("F", Array(text.utf8))
        case .hostChanged: ("H", [])
        case .end: ("E", [])
        }
      return [kind.asciiValue!]
        + withUnsafeBytes(of: UInt64(content.count).littleEndian, Array.init)
        + content
    }

    /// The whole messages that have come.
    mutating func take() -> [Message] {
      var messages: [Message] = []
      let header = 9
      while bytes.count >= header {
        let size = bytes[1..<header].reversed().reduce(0) { $0 << 8 | Int($1) }
        guard bytes.count >= header + size else { break }
        let content = Array(bytes[header..<header + size])
        switch Character(UnicodeScalar(bytes[0])) {
        case "B": messages.append(.built(content))
        case "F": messages.append(.failed(String(decoding: content, as: UTF8.self)))
        case "H": messages.append(.hostChanged)
        default: messages.append(.end)
        }
        bytes.removeFirst(header + size)
      }
      return messages
    }
  }
}
