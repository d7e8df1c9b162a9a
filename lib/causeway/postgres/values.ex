# The structs of types that Elixir has none for. Where Postgrex is loaded, its own are used instead; they have the
# same names and fields, and as parameters either are taken. docs/postgres_types.md has the whole table.

defmodule Causeway.Postgres.Interval do
  @moduledoc """
  PostgreSQL's `interval`. Months, days and seconds are kept apart, as their lengths vary; `secs` and `microsecs` have
  the same sign.
  """
  defstruct months: 0, days: 0, secs: 0, microsecs: 0

  @type t :: %__MODULE__{months: integer, days: integer, secs: integer, microsecs: integer}
end

defmodule Causeway.Postgres.Range do
  @moduledoc """
  A range. A bound is a value, or `:unbound`; both are `:empty` in the empty range. As a parameter, `nil` is `:unbound`.

  What comes back can differ from what was sent: the server turns ranges of integers and dates into the form `[a,b)`.
  """
  defstruct lower: nil, upper: nil, lower_inclusive: true, upper_inclusive: true

  @type t :: %__MODULE__{
          lower: term | :empty | :unbound,
          upper: term | :empty | :unbound,
          lower_inclusive: boolean,
          upper_inclusive: boolean
        }
end

defmodule Causeway.Postgres.Multirange do
  @moduledoc "Ranges in order, that neither overlap nor touch."
  defstruct ranges: nil

  @type t :: %__MODULE__{ranges: [Causeway.Postgres.Range.t()]}
end

defmodule Causeway.Postgres.INET do
  @moduledoc """
  PostgreSQL's `inet` and `cidr`. The mask is a number of bits, or nil for a single host.
  """
  defstruct address: nil, netmask: nil

  @type t :: %__MODULE__{address: :inet.ip_address(), netmask: nil | 0..128}
end

defmodule Causeway.Postgres.MACADDR do
  @moduledoc "PostgreSQL's `macaddr`, a tuple of six bytes, and `macaddr8`, of eight."
  defstruct address: nil

  @type t :: %__MODULE__{address: tuple}
end

defmodule Causeway.Postgres.Point do
  @moduledoc "A point on a plane. Of all these figures, coordinates can be `:inf`, `:\"-inf\"` and `:NaN`, too."
  defstruct x: nil, y: nil

  @type coordinate :: number | :inf | :"-inf" | :NaN
  @type t :: %__MODULE__{x: coordinate, y: coordinate}
end

defmodule Causeway.Postgres.Line do
  @moduledoc "The line `a * x + b * y + c = 0`."
  defstruct a: nil, b: nil, c: nil

  @type t :: %__MODULE__{
          a: Causeway.Postgres.Point.coordinate(),
          b: Causeway.Postgres.Point.coordinate(),
          c: Causeway.Postgres.Point.coordinate()
        }
end

defmodule Causeway.Postgres.LineSegment do
  @moduledoc "PostgreSQL's `lseg`."
  defstruct point1: nil, point2: nil

  @type t :: %__MODULE__{
          point1: Causeway.Postgres.Point.t(),
          point2: Causeway.Postgres.Point.t()
        }
end

defmodule Causeway.Postgres.Box do
  @moduledoc "A rectangle, by two of its corners."
  defstruct upper_right: nil, bottom_left: nil

  @type t :: %__MODULE__{
          upper_right: Causeway.Postgres.Point.t(),
          bottom_left: Causeway.Postgres.Point.t()
        }
end

defmodule Causeway.Postgres.Path do
  @moduledoc "Points in a row, the last of which is connected with the first one unless the path is open."
  defstruct points: nil, open: nil

  @type t :: %__MODULE__{points: [Causeway.Postgres.Point.t()], open: boolean}
end

defmodule Causeway.Postgres.Polygon do
  @moduledoc "The area within a closed path."
  defstruct vertices: nil

  @type t :: %__MODULE__{vertices: [Causeway.Postgres.Point.t()]}
end

defmodule Causeway.Postgres.Circle do
  @moduledoc "A circle; the radius is not negative."
  defstruct center: nil, radius: nil

  @type t :: %__MODULE__{
          center: Causeway.Postgres.Point.t(),
          radius: Causeway.Postgres.Point.coordinate()
        }
end

defmodule Causeway.Postgres.Lexeme do
  @moduledoc "A word of a `tsvector`, and where it stands, from 1 to 16383, with its weights; `nil` is the weight D."
  defstruct word: nil, positions: nil

  @type t :: %__MODULE__{word: String.t(), positions: [{pos_integer, :A | :B | :C | nil}]}
end
