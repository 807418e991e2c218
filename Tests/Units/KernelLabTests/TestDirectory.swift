import Glibc
import SystemPackage
import Testing

@testable import KernelLab

/// A directory that is removed after the test.
final class TestDirectory {
  let path: String

  init() throws {
    var template = Array("/tmp/virt-walker-lab-test-XXXXXX".utf8CString)
    _ = try #require(mkdtemp(&template))
    path = String(decoding: template.dropLast().map(UInt8.init(bitPattern:)), as: UTF8.self)
  }

  func write(_ name: String, _ text: String) throws {
    var directory = FilePath(path)
    for part in name.split(separator: "/").dropLast() {
      directory.append(String(part))
      mkdir(directory.string, 0o700)
    }
    let file = try FileDescriptor.open(
      "\(path)/\(name)", .writeOnly, options: [.create, .truncate],
      permissions: [.ownerReadWrite])
    _ = try file.closeAfter { try file.writeAll(text.utf8) }
  }

  deinit { LabFiles.remove(FilePath(path)) }
}
