import CharacterDeviceServer
import Glibc
import KernelEngine
import Scenarios
import SystemPackage

/// A directory with the files that a host and its guest boot: `lab build --output`, `serve --images`.
struct ImageDirectory {
  let path: FilePath

  /// The kernel, the host's initramfs and the guest's.
  static let names = ["Image", "host-initramfs.cpio", "guest-initramfs.cpio"]

  private func file(_ index: Int) -> FilePath { path.appending(Self.names[index]) }

  /// The files of the host.
  func images(emulator: FilePath) -> EmulatedHost.Images {
    .init(kernel: file(0), initramfs: file(1), emulator: emulator)
  }

  var guestInitramfs: FilePath { file(2) }

  /// The bytes of a guest's initramfs.
  static func content(ofGuest file: FilePath) throws(EngineFailure) -> [UInt8] {
    do {
      return try file.content(most: .max)
    } catch {
      throw EngineFailure("cannot read \(file): \(error): build it anew: virt-walkerd lab clean")
    }
  }

  /// Copies a file. The copy has its final name when it is complete.
  static func copy(_ source: FilePath, to target: FilePath) throws(Errno) {
    let part = FilePath("\(target).part")
    do {
      let input = try FileDescriptor.open(source, .readOnly, options: .closeOnExec)
      try input.closeAfter {
        let output = try FileDescriptor.open(
          part, .writeOnly, options: [.create, .truncate, .closeOnExec, .noFollow],
          permissions: [.ownerReadWrite, .groupRead, .otherRead])
        try output.closeAfter {
          var buffer = [UInt8](repeating: 0, count: 1 << 20)
          while true {
            let count = try buffer.withUnsafeMutableBytes { try input.read(into: $0) }
            guard count > 0 else { return }
            try output.writeAll(buffer[..<count])
          }
        }
      }
    } catch {
      unlink(part.string)
      throw error as? Errno ?? .ioError
    }
    guard rename(part.string, target.string) == 0 else { throw .current }
  }
}
