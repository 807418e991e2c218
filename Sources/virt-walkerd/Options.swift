import ArgumentParser
import CharacterDeviceServer
import Glibc
import Logging
import Stage2Sim
import SystemPackage

extension CPUModel: ExpressibleByArgument {}

extension Backing: ExpressibleByArgument {}

extension KernelVersion: ExpressibleByArgument {}

/// The options that select a node.
struct NodeOptions: ParsableArguments {
  @Option(help: "The node is /dev/NAME. (default: virt_walker)", transform: NodeOptions.parseName)
  var name: String?

  @Option(
    help: ArgumentHelp(
      "The node is this file, served by FUSE. An ordinary user needs fusermount3 for it. (default: the node of --name)",
      valueName: "file"),
    transform: NodeOptions.parsePath)
  var path: FilePath?

  func validate() throws {
    guard name == nil || path == nil else {
      throw ValidationError("--name and --path both name the node: give one of them")
    }
  }

  /// The user has named the node.
  var isGiven: Bool { name != nil || path != nil }

  /// The node as the mount table and other daemons name it: the directory contains no symbolic links.
  var node: FilePath {
    get throws {
      guard let path else { return FilePath("/dev").appending(name ?? "virt_walker") }
      return try path.inResolvedDirectory(
        advice: "choose a node in a directory that exists: --path FILE")
    }
  }

  private static func parseName(_ text: String) throws -> String {
    let allowed = text.utf8.allSatisfy {
      switch $0 {
      case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
        UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), UInt8(ascii: "-"),
        UInt8(ascii: "."):
        true
      default: false
      }
    }
    guard text.utf8.first != UInt8(ascii: "-") else {
      throw ValidationError(
        "'\(text)' is not a device name: commands would take a name that begins with '-' for an option"
      )
    }
    guard allowed, 1...64 ~= text.utf8.count, text.utf8.first != UInt8(ascii: ".") else {
      throw ValidationError(
        "'\(text)' is not a device name: use 1 to 64 letters, digits, '_', '-' and '.', with neither '-' nor '.' first"
      )
    }
    return text
  }

  private static func parsePath(_ text: String) throws -> FilePath {
    let path = FilePath(text)
    guard let last = path.lastComponent, last.kind == .regular,
      !text.utf8.contains(where: { $0 < 0x20 })
    else { throw ValidationError("'\(text)' is not the path of a file") }
    return path
  }
}

/// The options of the inspection tree.
struct TreeOptions: ParsableArguments {
  /// The values of `--tree`.
  enum Place: Equatable {
    case directory(FilePath)
    case none
  }

  @Option(
    help: ArgumentHelp(
      "The directory of the inspection tree: files that show the machine and control it. The word none means no tree. (default: /run/NAME, for users other than root $XDG_RUNTIME_DIR/NAME, or no tree if that directory cannot be made)",
      valueName: "dir"),
    transform: TreeOptions.parsePlace)
  var tree: Place?

  @Option(
    help: ArgumentHelp(
      "The mode of the tree's directories, 000 to 777, octal. Each file gets the read and write permissions that it supports. Owner and group are those of the node. (default: 0700)",
      valueName: "mode"),
    transform: AccessOptions.parseMode)
  var treeMode = FilePermissions.ownerReadWriteExecute

  private static func parsePlace(_ text: String) throws -> Place {
    if text == "none" { return .none }
    guard !text.isEmpty, !text.utf8.contains(where: { $0 < 0x20 }) else {
      throw ValidationError("'\(text)' is not the path of a directory")
    }
    return .directory(FilePath(text))
  }
}

/// The options that determine the entry with the hidden byte.
struct HostOptions: ParsableArguments {
  @Option(help: "The host's CPU model.")
  var cpu = CPUModel.cortexA76

  @Option(
    help:
      "The memory that backs guest RAM. With huge pages (huge, hugetlb), the entry is a level-2 block, otherwise a level-3 page."
  )
  var backing = Backing.huge

  @Option(
    help: ArgumentHelp(
      "The host's page size, and the guest's stage-2 granule. (values: 4K, 16K, 64K; default: \(Granule.kib4))",
      valueName: "size"),
    transform: HostOptions.parseGranule)
  var granule = Granule.kib4

  @Option(
    help: ArgumentHelp(
      "The size of the intermediate physical address: 32 to 40 on cortex-a76, 32 to 44 on cortex-a72, 32 to 48 on max.",
      valueName: "bits"))
  var ipa = VirtualMachine.Configuration().ipaBits

  func validate() throws {
    let sizes = KernelVersion.standard.ipaSizes
    let most = KernelVersion.standard.ipaLimit(on: cpu)
    guard (sizes.lowerBound...most).contains(ipa) else {
      throw ValidationError(
        "--ipa \(ipa): \(cpu.rawValue) has \(sizes.lowerBound) to \(most) bits")
    }
  }

  private static func parseGranule(_ text: String) throws -> Granule {
    guard let granule = Granule(text) else {
      throw ValidationError("'\(text)' is not a page size: give 4K, 16K or 64K")
    }
    return granule
  }
}

/// The guest RAM of the machine behind the node.
///
/// A group in a group would be the place for ``HostOptions``. A debug build checks the options of a group at each start, several times
/// for each group around it, so that groups in groups make each start slow.
struct MemoryOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Guest RAM, in bytes or with K, M, G or T: 4M to 1023G with 40 bits of IPA. The daemon does not allocate this memory. (default: \(MemoryOptions.size(VirtualMachine.Configuration().memorySize)))",
      valueName: "size"),
    transform: MemoryOptions.parseMemory)
  var memory = VirtualMachine.Configuration().memorySize

  /// Checks that the guest can have the memory on `host`.
  func check(on host: HostOptions) throws {
    let allowed = VirtualMachine.Configuration.memorySizes(ipaBits: host.ipa)
    guard allowed.contains(memory) else {
      throw ValidationError(
        "--memory \(memory) is outside what the guest can have with \(host.ipa) bits of IPA: \(Self.size(allowed.lowerBound)) to \(Self.size(allowed.upperBound))"
      )
    }
    let page = host.backing == .hugetlb ? host.granule.blockSize : host.granule.pageSize
    guard memory % page == 0 else {
      throw ValidationError(
        "--memory \(memory) is not a whole number of \(Self.size(page)) pages")
    }
  }

  /// The size in the largest unit that leaves no fraction.
  private static func size(_ bytes: UInt64) -> String {
    let units: [(String, UInt64)] = [("T", 40), ("G", 30), ("M", 20), ("K", 10)]
    let fit = units.first { bytes & (1 << $0.1 - 1) == 0 }
    return fit.map { "\(bytes >> $0.1)\($0.0)" } ?? "\(bytes)"
  }

  private static func parseMemory(_ text: String) throws -> UInt64 {
    let shifts: [Character: UInt64] = ["K": 10, "M": 20, "G": 30, "T": 40, "P": 50]
    let shift = text.last.flatMap { shifts[Character($0.uppercased())] }
    let digits = shift == nil ? text[...] : text.dropLast()
    guard let number = UInt64(digits), digits.first != "+" else {
      throw ValidationError("'\(text)' is not a size: give a number of bytes, or 256M or 1G")
    }
    let size = number.multipliedReportingOverflow(by: 1 << (shift ?? 0))
    guard !size.overflow else {
      throw ValidationError("'\(text)' is more than any guest can have: give 256M or 1G")
    }
    return size.partialValue
  }
}

/// The options for the access rights of the node.
struct AccessOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp("The node's mode, 000 to 777, octal. (default: 0600)", valueName: "mode"),
    transform: AccessOptions.parseMode)
  var mode = FilePermissions.ownerReadWrite

  @Option(
    help: ArgumentHelp(
      "The node's owner, a name or a number. (default: the user who starts the daemon)",
      valueName: "user"),
    transform: AccessOptions.parseUser)
  var owner: UInt32?

  @Option(
    help: ArgumentHelp(
      "The node's group, a name or a number. (default: the group of the user who starts the daemon)",
      valueName: "group"),
    transform: AccessOptions.parseGroup)
  var group: UInt32?

  func validate() throws {
    guard geteuid() == 0 || (owner == nil && group == nil) else {
      throw ValidationError("--owner and --group need root")
    }
  }

  static func parseMode(_ text: String) throws -> FilePermissions {
    guard let mode = UInt32(text, radix: 8), mode <= 0o777, text.first != "+" else {
      throw ValidationError("'\(text)' is not a mode: give 1 to 3 octal digits, such as 0660")
    }
    return FilePermissions(rawValue: mode)
  }

  private static func parseUser(_ text: String) throws -> UInt32 {
    if let id = UInt32(text), id != .max { return id }
    return try UserOptions.parseUser(text).id
  }

  private static func parseGroup(_ text: String) throws -> UInt32 {
    if let id = UInt32(text), id != .max { return id }
    guard let entry = getgrnam(text) else {
      throw ValidationError("there is no group '\(text)': getent group lists them")
    }
    return entry.pointee.gr_gid
  }
}

/// The user that the daemon becomes after it has made its nodes.
struct UserOptions: ParsableArguments {
  @Option(
    name: .customLong("user"),
    help: ArgumentHelp(
      "The name of the user as whom a daemon started by root serves, without capabilities. (default: virt-walker if that user exists, otherwise nobody)",
      valueName: "user"),
    transform: UserOptions.parseUser)
  var given: Sandbox.User?

  func validate() throws {
    guard given == nil || geteuid() == 0 else {
      throw ValidationError("--user needs root")
    }
  }

  /// Whether the option was left out.
  var isDefault: Bool { given == nil }

  /// The user to become; nil if the daemon was not started by root, and keeps its user.
  var user: Sandbox.User? { geteuid() == 0 ? given ?? Self.usual : nil }

  /// The user that a process of root's becomes if no other is named; nil for a process of another user.
  static var usual: Sandbox.User? {
    guard geteuid() == 0 else { return nil }
    return Self.lookUp("virt-walker") ?? Self.lookUp("nobody")
      // A system such as an initramfs may have no user database.
      ?? Sandbox.User(name: "nobody", id: 65534, group: 65534)
  }

  static func parseUser(_ text: String) throws -> Sandbox.User {
    guard let user = lookUp(text) else {
      throw ValidationError("there is no user '\(text)': getent passwd lists them")
    }
    return user
  }

  private static func lookUp(_ name: String) -> Sandbox.User? {
    getpwnam(name).map {
      Sandbox.User(name: name, id: $0.pointee.pw_uid, group: $0.pointee.pw_gid)
    }
  }
}

extension FilePath {
  /// The same file in a directory without symbolic links.
  func inResolvedDirectory(advice: String) throws -> FilePath {
    do throws(Errno) {
      let entry = try DirectoryEntry(self)
      var text = [CChar](repeating: 0, count: Int(PATH_MAX) + 1)
      let link = "/proc/self/fd/\(entry.directory.descriptor.rawValue)"
      guard readlink(link, &text, text.count - 1) >= 0 else { throw .current }
      return FilePath(platformString: text).appending(entry.name)
    } catch {
      throw Failure(
        error, doing: "use the directory of", at: self,
        advice: error == .tooManySymbolicLinkLevels
          ? "a symbolic link on the way belongs to another user, or they are too many: give the path without links"
          : advice)
    }
  }
}
