import Glibc
import Stage2Sim
import SystemPackage

/// Memory for stage-2 tables that the hook's process has, too.
final class SharedTableBlock: TableBlock, @unchecked Sendable {
  let descriptor: FileDescriptor

  /// Makes memory for at least `size` bytes; nil if there is none.
  init?(size: Int, _ launcher: any CodeLauncher) {
    guard let descriptor = try? launcher.makeTableMemory(size: size) else { return nil }
    guard let address = map(descriptor, size: size) else {
      try? descriptor.close()
      return nil
    }
    self.descriptor = descriptor
    super.init(address: address, size: size)
  }

  deinit {
    munmap(address, size)
    try? descriptor.close()
  }
}
